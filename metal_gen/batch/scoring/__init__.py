"""Rows that are scored or ranked rather than answered."""
