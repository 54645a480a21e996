"""Writes checkpoints anew, as mlx-lm has them."""
