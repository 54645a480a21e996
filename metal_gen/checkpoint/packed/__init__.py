"""How checkpoints store matrices: plain, or quantized by MLX, AWQ, GPTQ and other programs."""
