"""Terminals and streams: capabilities, progress, tables, Markdown."""
