"""Text generation with Qwen checkpoints on MLX, in memory that is fixed before it starts."""

__version__ = "0.1.0"
