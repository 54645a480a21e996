"""LoRA adapters, as PEFT and mlx-lm save them."""
