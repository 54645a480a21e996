"""Compares token ids with those that a cache holds."""

from collections.abc import Sequence


def common_prefix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many token ids two sequences share from their beginning."""
    most = min(len(first), len(second))
    return next((place for place in range(most) if first[place] != second[place]), most)


def common_parts_length(first: Sequence[int], second: Sequence[int], stride: int, most: int) -> int:
    """Return how many token ids two sequences share from their beginning, in whole parts.

    Args:
        first: Token ids.
        second: Token ids, in a sequence of the same type.
        stride: Number of tokens in a part.
        most: Largest length to return.
    """
    most = min(len(first), len(second), most)
    length = 0
    while length + stride <= most and first[length : length + stride] == second[length : length + stride]:
        length += stride
    return length
