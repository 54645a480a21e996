"""Beginnings of prompts: where they come from, and how the prefix cache serves them."""
