"""Random keys that depend only on the seed, the sequence and the token's index."""

from collections.abc import Iterable

import mlx.core as mx


class RandomKeys:
    """The keys of one generation.

    Args:
        seed: Seed from 0 to 2^64 - 1.
        sequence: Index among several generations with this seed.

    Attributes:
        base: Key that every token's key is derived from, (2,) uint32.
    """

    def __init__(self, seed: int, sequence: int = 0) -> None:
        self.seed = seed
        self.base = fold(fold(mx.random.key(seed), words(0)), words(sequence))

    def key(self, index: int) -> mx.array:
        """Return the key of the new token at this index, counted from 0."""
        return fold(self.base, words(index))


def words(number: int) -> mx.array:
    """Return a whole number below 2^64 as (2,) uint32, high half first."""
    return mx.array([number >> 32, number & 0xFFFFFFFF], dtype=mx.uint32)


def words_of(numbers: Iterable[int]) -> mx.array:
    """Return the `words` of several numbers, (R, 2)."""
    return mx.array([[number >> 32, number & 0xFFFFFFFF] for number in numbers], dtype=mx.uint32)


def fold(keys: mx.array, data: mx.array) -> mx.array:
    """Derive other keys: the generator's output under each key mixed with its data.

    Args:
        keys: One key, (2,), or a key of each row, (R, 2).
        data: Words in one of these forms.

    Returns:
        A key, (2,), or one for each row, (R, 2).
    """
    if keys.ndim == data.ndim == 1:
        return mx.random.split(keys ^ data)[0]
    shape = max(keys.shape, data.shape, key=len)
    return mx.vmap(fold)(mx.broadcast_to(keys, shape), mx.broadcast_to(data, shape))


def uniform(keys: mx.array) -> mx.array:
    """Draw one number in [0, 1) from a key, as (1, 1), or from each row of (R, 2), as (R, 1)."""
    if keys.ndim == 1:
        return mx.random.uniform(shape=(1, 1), key=keys)
    return mx.vmap(lambda key: mx.random.uniform(shape=(1,), key=key))(keys)
