"""The layout of a stored prefix of a text in a cache."""

from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True)
class StoredArray:
    """One array of a stored text.

    Attributes:
        name: Name of the array, such as `0.keys`.
        shape: Sizes of its axes.
        dtype: Dtype of its numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        count = self.dtype.size
        for size in self.shape:
            count *= size
        return count
