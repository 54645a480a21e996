"""The streams: what they can show, progress, tables, Markdown."""
