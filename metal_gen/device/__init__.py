"""The installed build of MLX, its memory and its BLAS."""
