"""Passes as compiled functions of fixed shapes: MLX replays them, with element-wise operations fused."""
