"""Where a model gets its weights from, while it is being built.

A family describes its weights once, by asking a source for them. One source only writes down what is
asked for, so that a checkpoint can be checked before anything is read; the other reads.

Axes: E experts.
"""

from typing import Protocol

import mlx.core as mx

from metal_gen.models.matrices.adapted import AnyMatrix
from metal_gen.models.matrices.matrix import ArrayMatrix

Shape = tuple[int, ...]


class ParameterSource(Protocol):
    """Gives weights by their names in the checkpoint.

    A matrix is named without `.weight`, because a quantized one is kept in several tensors.
    """

    def shape_of(self, name: str) -> Shape | None:
        """The shape of the tensor of this name, or None where the checkpoint has none."""
        ...

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Return the tensor of this name, which must have this shape."""
        ...

    def vector(self, sizes: dict[str, int]) -> mx.array:
        """Return several tensors of one axis as one.

        Args:
            sizes: By each tensor's name, in order.
        """
        ...

    def matrix(self, rows: dict[str, int], *columns: int, axis: int = 0) -> AnyMatrix:
        """Return several matrices as one.

        Args:
            rows: Each matrix's name and its size along the axis that they are joined along, in order.
            columns: The sizes of the other axes.
            axis: Along which they are joined.
        """
        ...

    def one_by_one(self, rows: dict[str, int], inputs: int, *, experts: int) -> ArrayMatrix:
        """Return the matrices of single experts as one, (E, out, inputs).

        Args:
            rows: Each matrix's name and its outputs; as many, and the same, for each expert.
            inputs: Of all.
            experts: E.
        """
        ...

    def experts(self, name: str, *shape: int, is_turned: bool) -> ArrayMatrix:
        """Return the tensor that holds a matrix for each expert, (E, out, in).

        Args:
            name: Of the tensor.
            shape: To be returned.
            is_turned: The tensor is (E, in, out).
        """
        ...
