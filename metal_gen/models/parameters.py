"""Where a model gets its weights from, while it is being built.

A family describes its tensors once, by asking a source for them. One source only writes the
names and shapes down, so that a checkpoint can be checked before anything is read; the other
reads them.
"""

from collections.abc import Collection
from typing import Protocol

import mlx.core as mx

Shape = tuple[int, ...]


class ParameterSource(Protocol):
    """Gives tensors by their name in the checkpoint."""

    def has(self, name: str) -> bool:
        """Whether the checkpoint has a tensor of this name."""
        ...

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Return the tensor of this name, which must have this shape."""
        ...

    def stack(self, rows: dict[str, int], *columns: int, axis: int = 0) -> mx.array:
        """Return several tensors as one, joined in the order given.

        Args:
            rows: Each tensor's name and its size along the axis that they are joined along.
            columns: The sizes of the other axes.
            axis: Along which they are joined.
        """
        ...


class ShapeRecorder:
    """A source that keeps a list of what is asked for and answers with unevaluated zeros.

    Args:
        names: Of the checkpoint's tensors.

    Attributes:
        shapes: Of everything that was asked for.
        requests: The names in it, those that are asked for together in one tuple.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.names = names
        self.shapes: dict[str, Shape] = {}
        self.requests: list[tuple[str, ...]] = []

    def has(self, name: str) -> bool:
        """Look among the names."""
        return name in self.names

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Note the name and shape."""
        self.shapes[name] = shape
        self.requests.append((name,))
        return mx.zeros(shape)

    def stack(self, rows: dict[str, int], *columns: int, axis: int = 0) -> mx.array:
        """Note each of the parts."""
        for name, count in rows.items():
            self.shapes[name] = (*columns[:axis], count, *columns[axis:])
        self.requests.append(tuple(rows))
        return mx.zeros((*columns[:axis], sum(rows.values()), *columns[axis:]))
