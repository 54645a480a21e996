"""The output of commands: text, JSON, files, reports."""
