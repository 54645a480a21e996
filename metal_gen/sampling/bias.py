"""Bias: numbers added to the logits of some tokens.

Axes: R rows, V vocabulary.
"""

import mlx.core as mx


def bias_arrays(pairs: dict[int, float]) -> tuple[mx.array, mx.array] | None:
    """Return token ids and the values to add to their logits, or None if there are none."""
    if not pairs:
        return None
    return mx.array(list(pairs), dtype=mx.int32), mx.array(list(pairs.values()), dtype=mx.float32)


def add_bias(logits: mx.array, bias: tuple[mx.array, mx.array] | None) -> mx.array:
    """Add the bias to the logits (R, V) of its tokens."""
    if bias is None:
        return logits
    ids, values = bias
    return logits.at[:, ids].add(values)
