"""What a person gives: settings, prompts, models."""
