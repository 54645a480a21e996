"""How much of a cache a pass reads, where each new length would cost another compilation.

The length grows in a few strides, and a mask hides the places after the position.
"""

from metal_gen.models.kernels.heads import ONE_STRETCH

SHORTEST_STRIDE = 256
STRIDES_PER_DOUBLING = 8


def attended_length(position: int, capacity: int) -> int:
    """Return how much of the cache attention reads when it holds `position` tokens, with the new one.

    The length is a multiple of 256 tokens, or of an eighth of the last power of two if that is more, so
    that each next length costs at most an eighth more.
    """
    doubling = 1 << (position - 1).bit_length() >> 1
    stride = max(SHORTEST_STRIDE, doubling // STRIDES_PER_DOUBLING)
    return min(-(-position // stride) * stride, capacity)


def read_length(position: int, capacity: int, *, has_kernel: bool) -> int:
    """Return how much of a cache of `position` tokens, with the new ones, a compiled pass may read.

    A kernel reads only what is there, and knows two lengths.
    """
    if not has_kernel:
        return attended_length(position, capacity)
    return min(ONE_STRETCH, capacity) if position <= ONE_STRETCH else capacity
