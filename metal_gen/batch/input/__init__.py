"""Rows in: reads lines, and parses their settings and prompts."""
