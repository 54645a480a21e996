"""The build of MLX in use, its memory and its BLAS."""
