"""Random numbers for the tensors of a checkpoint, made in blocks of rows so that memory stays small."""

import hashlib
import math
from collections.abc import Iterator

import mlx.core as mx

from metal_gen.models.matrices.parameters import Shape

# Numbers that are made at once.
BLOCK_SIZE = 1 << 22
# Standard deviations, as at the start of training.
OF_MATRICES, OF_CONVOLUTIONS = 0.02, 0.3


class RandomNumbers:
    """Makes tensors. Each block of each tensor has its own numbers, which depend on the seed.

    Args:
        dtype: Dtype of the tensors.
        seed: Any whole number.
        around_zero: Whether the weights of norms are stored minus 1.
    """

    def __init__(self, dtype: mx.Dtype, seed: int, *, around_zero: bool) -> None:
        self.dtype = dtype
        self._seed = seed
        self._around_zero = around_zero

    def blocks(self, name: str, shape: Shape) -> Iterator[mx.array]:
        """Yield a tensor in blocks of rows.

        Args:
            name: Name of the tensor in a text model.
            shape: Shape of the whole tensor.
        """
        step = rows_of_a_block(shape)
        for number, begin in enumerate(range(0, shape[0], step)):
            yield self.block(name, number, (min(step, shape[0] - begin), *shape[1:]))

    def key(self, name: str, number: int) -> mx.array:
        """Return the random key of a block."""
        digest = hashlib.blake2b(f"{self._seed} {name} {number}".encode(), digest_size=8).digest()
        return mx.random.key(int.from_bytes(digest, "big"))

    def block(self, name: str, number: int, shape: Shape) -> mx.array:
        """Return a block of this shape."""
        key = self.key(name, number)
        if name.endswith(".A_log"):
            return mx.log(mx.random.uniform(1, 16, shape, key=key)).astype(self.dtype)
        if name.endswith(".dt_bias"):
            return mx.ones(shape, self.dtype)
        if len(shape) == 1:
            is_less_one = self._around_zero and not name.endswith(".linear_attn.norm.weight")
            return mx.full(shape, 0 if is_less_one else 1, self.dtype)
        scale = OF_CONVOLUTIONS if name.endswith(".conv1d.weight") else OF_MATRICES
        return (mx.random.normal(shape, key=key) * scale).astype(self.dtype)


def rows_of_a_block(shape: Shape) -> int:
    """Return how many rows of a tensor are made at once."""
    return max(1, BLOCK_SIZE // math.prod(shape[1:]))
