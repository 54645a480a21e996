"""Draws from weights by inverting their cumulative distribution, in the order of ids.

Axes: R rows, N weights.
"""

import mlx.core as mx

from metal_gen.sampling.blocks import BLOCK, in_blocks

# Up to here a running sum in float32 is exact enough. Over a flat vocabulary of 151,936 it would
# drift by parts in a thousand, because each addend is rounded to the size of the total.
PLAIN_SUM = 8192
# Keeps the target below the total whatever the rounding of either.
BELOW_ONE = 1 - 2**-20


def draw(weights: mx.array, uniform: mx.array) -> mx.array:
    """Draw one place per row.

    Args:
        weights: (R, N), not negative; a row's sum is positive.
        uniform: (R, 1) in [0, 1).

    Returns:
        (R, 1) places among the N; never one of weight 0.
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
    """The first place, (R, 1), that has a weight and ends beyond the target."""
    target = mx.minimum(target, ends[:, -1:] * BELOW_ONE)
    return mx.argmax((ends > target) & (weights > 0), axis=-1, keepdims=True)
