"""Draws from weights by inverting their cumulative distribution, in the order of token ids.

Axes: R rows, N weights.
"""

import mlx.core as mx

from metal_gen.sampling.blocks import BLOCK, in_blocks

# Up to this length, a running sum in float32 is exact enough. Over a flat vocabulary of 151,936 it would
# drift by parts in a thousand, because each addend is rounded to the size of the total.
PLAIN_SUM = 8192
# Keeps the target below the total, however either is rounded.
BELOW_ONE = 1 - 2**-20


def draw(weights: mx.array, uniform: mx.array) -> mx.array:
    """Draw one place per row.

    Args:
        weights: Weights, (R, N), not negative; the sum of each row is positive.
        uniform: Random numbers in [0, 1), (R, 1).

    Returns:
        Drawn places among the N, (R, 1), never with weight 0.
    """
    if weights.shape[-1] <= PLAIN_SUM:
        ends = mx.cumsum(weights, axis=-1)
        return _first_beyond(ends, uniform * ends[:, -1:], weights)
    blocks = in_blocks(weights, 0.0)
    sums = blocks.sum(axis=-1)
    ends = mx.cumsum(sums, axis=-1)
    target = uniform * ends[:, -1:]
    block = _first_beyond(ends, target, sums)
    inside = mx.take_along_axis(blocks, block[:, :, None], axis=1).squeeze(1)
    before = mx.take_along_axis(ends - sums, block, axis=-1)
    return block * BLOCK + _first_beyond(mx.cumsum(inside, axis=-1), target - before, inside)


def _first_beyond(ends: mx.array, target: mx.array, weights: mx.array) -> mx.array:
    """Return the first place, (R, 1), with a weight above 0 and a running sum beyond the target."""
    target = mx.minimum(target, ends[:, -1:] * BELOW_ONE)
    return mx.argmax((ends > target) & (weights > 0), axis=-1, keepdims=True)
