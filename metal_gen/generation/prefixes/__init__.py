"""Prompt prefixes: their sources, and their use with the prefix cache."""
