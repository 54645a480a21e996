"""GPU kernels of metal-gen's own: one body of code, in the dialects of Metal and CUDA."""
