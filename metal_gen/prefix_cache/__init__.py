"""Beginnings of prompts on disk: what a prompt shares with earlier ones is computed once."""
