"""Prompt prefixes on disk: the part that prompts have in common is computed only once."""
