"""User input: settings, prompts, models."""
