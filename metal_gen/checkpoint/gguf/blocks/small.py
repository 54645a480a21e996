"""Blocks of 32 numbers with one scale, and an offset if their name ends with 1.

Source: `dequantize_row_q4_0` and its neighbors in `ggml-quants.c` of https://github.com/ggml-org/llama.cpp

Axes: N blocks. Each function takes (N, bytes) uint8 and returns integers (N, 32), scales and biases (N, 1).
"""

import mlx.core as mx

from metal_gen.checkpoint.gguf.blocks.bits import bits, half, nibbles

Affine = tuple[mx.array, mx.array, mx.array]


def q4_0(blocks: mx.array) -> Affine:
    """Decode 4 bits around 8."""
    scale = half(blocks, 0)
    return nibbles(blocks[:, 2:]), scale, -8 * scale


def q4_1(blocks: mx.array) -> Affine:
    """Decode 4 bits above a minimum."""
    return nibbles(blocks[:, 4:]), half(blocks, 0), half(blocks, 2)


def q5_0(blocks: mx.array) -> Affine:
    """Decode 5 bits around 16."""
    scale = half(blocks, 0)
    return nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6]), scale, -16 * scale


def q5_1(blocks: mx.array) -> Affine:
    """Decode 5 bits above a minimum."""
    return nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8]), half(blocks, 0), half(blocks, 2)


def q8_0(blocks: mx.array) -> Affine:
    """Decode 8 signed bits."""
    scale = half(blocks, 0)
    return mx.bitwise_xor(blocks[:, 2:], 128), scale, -128 * scale


def _fifth_bits(blocks: mx.array) -> mx.array:
    """Return the highest bits of 32 numbers, in the order of the numbers, (N, 4) to (N, 32)."""
    return bits(blocks, 1).swapaxes(1, 2).reshape(-1, 32) << 4
