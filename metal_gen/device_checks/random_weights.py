"""Weights for a model that no checkpoint has: random, and the same on every device."""

import math
from zlib import crc32

import mlx.core as mx

from metal_gen.device_checks.check import random_numbers
from metal_gen.models.matrices.adapted import AnyMatrix
from metal_gen.models.matrices.matrix import ArrayMatrix, DenseMatrix, join
from metal_gen.models.matrices.parameters import Shape


class RandomWeights:
    """A `ParameterSource` that makes up what is asked for; each name has its own numbers.

    Args:
        dtype: Of the weights.
    """

    def __init__(self, dtype: mx.Dtype) -> None:
        self.dtype = dtype

    def shape_of(self, name: str) -> Shape | None:
        """None: the layout is the one that is published."""
        return None

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Small numbers: what norms add to 1, and biases."""
        return random_numbers(_seed(name), *shape, dtype=self.dtype, scale=0.1)

    def vector(self, sizes: dict[str, int]) -> mx.array:
        """As `tensor`, for several that are joined."""
        return mx.concatenate([self.tensor(name, size) for name, size in sizes.items()])

    def matrix(self, rows: dict[str, int], *columns: int, axis: int = 0) -> AnyMatrix:
        """Numbers that keep the size of what they are multiplied with."""
        return join(
            [self._matrix(name, *columns[:axis], count, *columns[axis:]) for name, count in rows.items()],
            axis,
        )

    def one_by_one(self, rows: dict[str, int], inputs: int, *, experts: int) -> ArrayMatrix:
        """All experts' matrices at once."""
        return self._matrix(next(iter(rows)), experts, sum(rows.values()) // experts, inputs)

    def experts(self, name: str, *shape: int, is_turned: bool) -> ArrayMatrix:
        """All experts' matrices at once."""
        return self._matrix(name, *shape)

    def _matrix(self, name: str, *shape: int) -> DenseMatrix:
        scale = 1 / math.sqrt(shape[-1])
        return DenseMatrix(random_numbers(_seed(name), *shape, dtype=self.dtype, scale=scale))


def _seed(name: str) -> int:
    return crc32(name.encode())
