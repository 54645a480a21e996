"""Random keys that depend on the seed, the sequence and the token's index, and on nothing else."""

import mlx.core as mx


class RandomKeys:
    """The keys of one generation.

    Args:
        seed: 0 to 2^64 - 1.
        sequence: Which of several generations with this seed.

    Attributes:
        base: (2,) uint32: what every token's key is derived from.
    """

    def __init__(self, seed: int, sequence: int = 0) -> None:
        self.seed = seed
        self.base = fold(fold(mx.random.key(seed), words(0)), words(sequence))

    def key(self, index: int) -> mx.array:
        """The key for the new token at this index, counted from 0."""
        return fold(self.base, words(index))


def words(number: int) -> mx.array:
    """A whole number below 2^64 as (2,) uint32, the high half first."""
    return mx.array([number >> 32, number & 0xFFFFFFFF], dtype=mx.uint32)


def fold(key: mx.array, data: mx.array) -> mx.array:
    """Derive another key: the generator's output under the key with the data, (2,), mixed in."""
    return mx.random.split(key ^ data)[0]


def fold_rows(keys: mx.array, data: mx.array) -> mx.array:
    """`fold` of each row of (R, 2) by itself."""
    return mx.vmap(fold)(keys, data)


def uniform(keys: mx.array) -> mx.array:
    """Draw one number in [0, 1) from a key, (1, 1), or from each row of (R, 2), (R, 1)."""
    if keys.ndim == 1:
        return mx.random.uniform(shape=(1, 1), key=keys)
    return mx.vmap(lambda key: mx.random.uniform(shape=(1,), key=key))(keys)
