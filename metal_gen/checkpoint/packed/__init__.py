"""How checkpoints store matrices: unquantized, or quantized by MLX, AWQ, GPTQ and other programs."""
