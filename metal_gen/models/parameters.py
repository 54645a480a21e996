"""Where a model gets its weights from, while it is being built.

A family describes its tensors once, by asking a source for them. One source only writes the
names and shapes down, so that a checkpoint can be checked before anything is read; the other
reads them.
"""

from typing import Protocol

import mlx.core as mx

Shape = tuple[int, ...]


class ParameterSource(Protocol):
    """Gives tensors by their name in the checkpoint."""

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Return the tensor of this name, which must have this shape."""
        ...

    def stack(self, rows: dict[str, int], *columns: int) -> mx.array:
        """Return several tensors as one, joined along the first axis in the order given.

        Args:
            rows: Each tensor's name and its size along the first axis.
            columns: The sizes of the other axes.
        """
        ...


class ShapeRecorder:
    """A source that keeps a list of what is asked for and answers with unevaluated zeros."""

    def __init__(self) -> None:
        self.shapes: dict[str, Shape] = {}

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Note the name and shape."""
        self.shapes[name] = shape
        return mx.zeros(shape)

    def stack(self, rows: dict[str, int], *columns: int) -> mx.array:
        """Note each of the parts."""
        parts = [self.tensor(name, count, *columns) for name, count in rows.items()]
        return mx.concatenate(parts)
