"""Random weights for a model without a checkpoint, the same on every device."""

import math
from zlib import crc32

import mlx.core as mx

from metal_gen.device_checks.check import random_numbers
from metal_gen.models.matrices.adapted import AnyMatrix
from metal_gen.models.matrices.matrix import ArrayMatrix, DenseMatrix, join
from metal_gen.models.matrices.parameters import Shape


class RandomWeights:
    """A `ParameterSource` that generates weights. Each name has its own numbers.

    Args:
        dtype: Dtype of the weights.
    """

    def __init__(self, dtype: mx.Dtype) -> None:
        self.dtype = dtype

    def shape_of(self, name: str) -> Shape | None:
        """Return None, which means the published layout."""
        return None

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Return small numbers, for norms that add 1 to them and for biases."""
        return random_numbers(_seed(name), *shape, dtype=self.dtype, scale=0.1)

    def vector(self, sizes: dict[str, int]) -> mx.array:
        """Return several small vectors, joined."""
        return mx.concatenate([self.tensor(name, size) for name, size in sizes.items()])

    def matrix(self, rows: dict[str, int], *columns: int, axis: int = 0) -> AnyMatrix:
        """Return numbers that preserve the size of what they are multiplied with."""
        return join(
            [self._matrix(name, *columns[:axis], count, *columns[axis:]) for name, count in rows.items()],
            axis,
        )

    def one_by_one(self, rows: dict[str, int], inputs: int, *, experts: int) -> ArrayMatrix:
        """Return the matrices of all experts at once."""
        return self._matrix(next(iter(rows)), experts, sum(rows.values()) // experts, inputs)

    def experts(self, name: str, *shape: int, is_turned: bool) -> ArrayMatrix:
        """Return the matrices of all experts at once."""
        return self._matrix(name, *shape)

    def _matrix(self, name: str, *shape: int) -> DenseMatrix:
        scale = 1 / math.sqrt(shape[-1])
        return DenseMatrix(random_numbers(_seed(name), *shape, dtype=self.dtype, scale=scale))


def _seed(name: str) -> int:
    return crc32(name.encode())
