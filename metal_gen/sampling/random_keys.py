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


def fold(key: mx.array, data: mx.array) -> mx.array:
    """Derive another key: the generator's output under the key mixed with the data, (2,)."""
    return mx.random.split(key ^ data)[0]


def fold_rows(keys: mx.array, data: mx.array) -> mx.array:
    """Apply `fold` to each row of (R, 2) separately."""
    return mx.vmap(fold)(keys, data)


def uniform(keys: mx.array) -> mx.array:
    """Draw one number in [0, 1) from a key, as (1, 1), or from each row of (R, 2), as (R, 1)."""
    if keys.ndim == 1:
        return mx.random.uniform(shape=(1, 1), key=keys)
    return mx.vmap(lambda key: mx.random.uniform(shape=(1,), key=key))(keys)
