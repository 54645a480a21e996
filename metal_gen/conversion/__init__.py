"""Converts checkpoints to mlx-lm's format."""
