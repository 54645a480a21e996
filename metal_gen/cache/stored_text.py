"""The layout of a stored prefix of a text in a cache."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

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


class TextStorage(Protocol):
    """A text in a cache whose beginning can be stored and restored.

    Attributes:
        can_be_cut: Whether a stored text can end before its own end.
    """

    @property
    def can_be_cut(self) -> bool:
        """See the class."""
        ...

    def layout(self, length: int) -> list[StoredArray]:
        """Describe the arrays of a text of this length."""
        ...

    def stored(self, length: int) -> Iterator[mx.array]:
        """Yield copies of the first positions, one array at a time."""
        ...

    def restore(self, length: int, arrays: Iterable[mx.array]) -> None:
        """Begin a text with stored positions."""
        ...

    def clear(self) -> None:
        """Forget the text."""
        ...


def write_while_reading(
    buffers: Sequence[mx.array], arrays: Iterable[mx.array], write: Callable[[mx.array, mx.array], None]
) -> None:
    """Write arrays from storage to buffers, each while the next is read. No more than two are in memory.

    Args:
        buffers: Buffers of a cache.
        arrays: Arrays, read one by one; there may be more.
        write: Called with a buffer and its array.
    """
    before: mx.array | None = None
    for buffer, array in zip(buffers, arrays, strict=False):
        if before is not None:
            mx.eval(before)
        write(buffer, array)
        mx.async_eval(buffer)
        before = buffer
    if before is not None:
        mx.eval(before)
