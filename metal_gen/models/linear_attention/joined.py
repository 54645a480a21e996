"""What linear attention does to single numbers: on a GPU each of these is one operation.

Axes: B sequences, L tokens, R rows, C channels, T taps, H value heads, V size of a value.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu


def pace(decay: mx.array, bias: mx.array, speed: mx.array, beta: mx.array) -> tuple[mx.array, mx.array]:
    """How much each head keeps, as a logarithm, and how much it takes of a value: (R, H) of each."""
    kept, taken = _on_this_device(_pace)(decay, bias, speed, beta)
    return kept, taken


def convolved(tokens: mx.array, taps: mx.array) -> mx.array:
    """Weigh each channel's last T tokens: (B, T - 1 + L, C) to silu of their sum, (B, L, C), float32.

    Args:
        tokens: Those before the first, and then the new ones.
        taps: (T, C).
    """
    count = len(taps)
    length = tokens.shape[1] - count + 1
    shifted = [tokens[:, tap : tap + length] for tap in range(count)]
    result: mx.array = _on_this_device(_weighted)(*shifted, *taps)
    return result


def gated(heads: mx.array, gates: mx.array) -> mx.array:
    """Multiply heads by silu(gates), in float32; (..., V) of both."""
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
    """For a CPU, MLX would call a C++ compiler to join operations."""
    return function if runs_on_cpu() else _joined(function)


@cache
def _joined(function: Callable[..., Any]) -> Callable[..., Any]:
    return mx.compile(function, shapeless=True)
