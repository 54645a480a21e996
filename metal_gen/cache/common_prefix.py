"""Compares token ids with those that a cache holds."""

from collections.abc import Sequence


def common_prefix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many token ids two sequences share from their beginning."""
    most = min(len(first), len(second))
    return next((place for place in range(most) if first[place] != second[place]), most)
