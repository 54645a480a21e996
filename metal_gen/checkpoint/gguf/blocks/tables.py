"""Blocks whose 4 bits are indices into a table of numbers.

Source: `kvalues_iq4nl` in `ggml-common.h`, `dequantize_row_iq4_xs` and its neighbors in `ggml-quants.c` of
https://github.com/ggml-org/llama.cpp

Axes: N blocks.
"""

import mlx.core as mx

from metal_gen.checkpoint.gguf.blocks.bits import bits, half, nibbles

# The 8-bit integers of IQ4_NL and IQ4_XS.
VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
# Added to make them unsigned. It is a power of 2, so that scale and bias are rounded in the same way.
OFFSET = 128


def iq4_nl(blocks: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Decode 32 numbers with one scale to integers (N, 32), scales and biases (N, 1)."""
    scale = half(blocks, 0)
    return _looked_up(nibbles(blocks[:, 2:])), scale, -OFFSET * scale


def iq4_xs(blocks: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Decode eight groups of 32 with 6-bit scales to integers (N, 256), scales and biases (N, 8)."""
    upper = bits(blocks[:, 2:4], 2).swapaxes(1, 2).reshape(-1, 8)
    lower = bits(blocks[:, 4:8], 4).swapaxes(1, 2).reshape(-1, 8)
    scales = half(blocks, 0) * ((lower | (upper << 4)).astype(mx.float32) - 32)
    values = nibbles(blocks[:, 8:].reshape(-1, 8, 16)).reshape(-1, 256)
    return _looked_up(values), scales, -OFFSET * scales


def mxfp4(blocks: mx.array) -> tuple[mx.array, mx.array]:
    """Decode 32 numbers of 4 bits with a power of 2, as in MLX, to (N, 32) and (N, 1) uint8."""
    return nibbles(blocks[:, 1:]), blocks[:, :1]


def _looked_up(places: mx.array) -> mx.array:
    return mx.array([value + OFFSET for value in VALUES], mx.uint8)[places]
