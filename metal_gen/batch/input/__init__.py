"""Rows in: reading lines, their settings and their prompts."""
