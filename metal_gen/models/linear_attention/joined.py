"""Element-wise operations of linear attention, each fused into one operation on a GPU.

Axes: B sequences, L tokens, R rows, C channels, T taps, H value heads, V size of a value.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu


def pace(decay: mx.array, bias: mx.array, speed: mx.array, beta: mx.array) -> tuple[mx.array, mx.array]:
    """Return the logarithm of what each head keeps, and the share of a value it stores, (R, H) each."""
    kept, taken = _on_this_device(_pace)(decay, bias, speed, beta)
    return kept, taken


def convolved(tokens: mx.array, taps: mx.array) -> mx.array:
    """Apply the convolution and silu: (B, T - 1 + L, C) to (B, L, C), float32.

    Args:
        tokens: T - 1 earlier inputs, followed by the new ones.
        taps: Taps, (T, C).
    """
    count = len(taps)
    length = tokens.shape[1] - count + 1
    shifted = [tokens[:, tap : tap + length] for tap in range(count)]
    result: mx.array = _on_this_device(_weighted)(*shifted, *taps)
    return result


def gated(heads: mx.array, gates: mx.array) -> mx.array:
    """Multiply heads by silu(gates) in float32; both are (..., V)."""
    result: mx.array = _on_this_device(_gated)(heads, gates)
    return result


def _pace(decay: mx.array, bias: mx.array, speed: mx.array, beta: mx.array) -> tuple[mx.array, mx.array]:
    kept = speed * mx.logaddexp(decay.astype(mx.float32) + bias, mx.array(0.0))
    return kept, mx.sigmoid(beta).astype(mx.float32)


def _weighted(*tokens_and_taps: mx.array) -> mx.array:
    count = len(tokens_and_taps) // 2
    products = [tokens_and_taps[place] * tokens_and_taps[count + place] for place in range(count)]
    total = products[0]
    for product in products[1:]:
        total = total + product
    return (total * mx.sigmoid(total)).astype(mx.float32)


def _gated(heads: mx.array, gates: mx.array) -> mx.array:
    gates = gates.astype(mx.float32)
    return heads * (gates * mx.sigmoid(gates))


def _on_this_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Fuse a function on a GPU. On a CPU, MLX would call a C++ compiler for it."""
    return function if runs_on_cpu() else _joined(function)


@cache
def _joined(function: Callable[..., Any]) -> Callable[..., Any]:
    return mx.compile(function, shapeless=True)
