"""Where a model gets its weights from, while it is being built.

A family describes its tensors once, by asking a source for them. One source only writes the
names and shapes down, so that a checkpoint can be checked before anything is read; the other
reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

Shape = tuple[int, ...]


class ParameterSource(Protocol):
    """Gives tensors by their name in the checkpoint."""

    def shape_of(self, name: str) -> Shape | None:
        """The shape of the tensor of this name, or None where the checkpoint has none."""
        ...

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Return the tensor of this name, which must have this shape."""
        ...

    def turned(self, name: str, *shape: int) -> mx.array:
        """Return a tensor with its last two axes exchanged, so that it has this shape."""
        ...

    def stack(self, rows: dict[str, int], *columns: int, axis: int = 0) -> mx.array:
        """Return several tensors as one, joined in the order given.

        Args:
            rows: Each tensor's name and its size along the axis that they are joined along.
            columns: The sizes of the other axes.
            axis: Along which they are joined.
        """
        ...


@dataclass(frozen=True)
class Request:
    """Tensors that are asked for at one time.

    Attributes:
        names: Theirs.
        is_copied: What is returned is made of them, rather than being the one that there is.
    """

    names: tuple[str, ...]
    is_copied: bool


class ShapeRecorder:
    """A source that keeps a list of what is asked for and answers with unevaluated zeros.

    Args:
        found: The shapes of the checkpoint's tensors.

    Attributes:
        shapes: Of everything that was asked for.
        requests: In their order.
    """

    def __init__(self, found: Mapping[str, Shape]) -> None:
        self.found = found
        self.shapes: dict[str, Shape] = {}
        self.requests: list[Request] = []

    def shape_of(self, name: str) -> Shape | None:
        """Look among those found."""
        return self.found.get(name)

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Note the name and shape."""
        self.shapes[name] = shape
        self.requests.append(Request((name,), is_copied=False))
        return mx.zeros(shape)

    def turned(self, name: str, *shape: int) -> mx.array:
        """Note the name, and the shape before it is turned."""
        self.shapes[name] = (*shape[:-2], shape[-1], shape[-2])
        self.requests.append(Request((name,), is_copied=True))
        return mx.zeros(shape)

    def stack(self, rows: dict[str, int], *columns: int, axis: int = 0) -> mx.array:
        """Note each of the parts."""
        for name, count in rows.items():
            self.shapes[name] = (*columns[:axis], count, *columns[axis:])
        self.requests.append(Request(tuple(rows), is_copied=len(rows) > 1))
        return mx.zeros((*columns[:axis], sum(rows.values()), *columns[axis:]))
