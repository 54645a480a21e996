"""Random keys that depend on the seed, the sequence and the token's index, and on nothing else."""

import secrets

import mlx.core as mx

SEED_BITS = 32


class RandomKeys:
    """The keys of one generation.

    Args:
        seed: 0 to 2^64 - 1.
        sequence: Which of several generations with this seed.
    """

    def __init__(self, seed: int, sequence: int = 0) -> None:
        self.seed = seed
        self._base = fold(fold(mx.random.key(seed), 0), sequence)

    def key(self, index: int) -> mx.array:
        """The key for the new token at this index, counted from 0."""
        return fold(self._base, index)


def fold(key: mx.array, data: int) -> mx.array:
    """Derive another key: the generator's output under the key with the data mixed in."""
    return mx.random.split(key ^ mx.array([data >> 32, data & 0xFFFFFFFF], dtype=mx.uint32))[0]


def choose_seed() -> int:
    """A seed to use, and to report, when none is given."""
    return secrets.randbits(SEED_BITS)
