"""Matrices of a model: plain, quantized or adapted, and where they come from."""
