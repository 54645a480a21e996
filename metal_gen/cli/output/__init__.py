"""What is written: text, JSON, files, reports."""
