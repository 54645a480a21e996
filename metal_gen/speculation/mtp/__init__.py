"""Guesses with the model's own layers for multi-token prediction (mtp)."""
