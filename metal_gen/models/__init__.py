"""The Qwen forward pass, written on `mlx.core`."""
