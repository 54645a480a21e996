"""The source of a model's weights while it is being built.

A family describes its weights once, by asking a source for them. One source only records what is asked
for, so that a checkpoint can be checked before anything is read. The other source reads.

Axes: E experts.
"""

from typing import Protocol

import mlx.core as mx

from metal_gen.models.matrices.adapted import AnyMatrix
from metal_gen.models.matrices.matrix import ArrayMatrix

Shape = tuple[int, ...]


class ParameterSource(Protocol):
    """Returns weights by their names in the checkpoint.

    The name of a matrix has no `.weight`, because a quantized matrix is stored in several tensors.
    """

    def shape_of(self, name: str) -> Shape | None:
        """Return the shape of this tensor, or None if the checkpoint has no such tensor."""
        ...

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Return this tensor, which must have this shape."""
        ...

    def vector(self, sizes: dict[str, int]) -> mx.array:
        """Return several tensors of one axis, joined.

        Args:
            sizes: Size of each tensor by its name, in order.
        """
        ...

    def matrix(self, rows: dict[str, int], *columns: int, axis: int = 0) -> AnyMatrix:
        """Return several matrices, joined.

        Args:
            rows: Size of each matrix along `axis` by its name, in order.
            columns: Sizes of the other axes.
            axis: Axis along which they are joined.
        """
        ...

    def one_by_one(self, rows: dict[str, int], inputs: int, *, experts: int) -> ArrayMatrix:
        """Return the matrices of single experts, joined to (E, out, inputs).

        Args:
            rows: Number of outputs of each matrix by its name; the same for each expert.
            inputs: Number of inputs of all matrices.
            experts: E.
        """
        ...

    def experts(self, name: str, *shape: int, is_turned: bool) -> ArrayMatrix:
        """Return a tensor that holds a matrix for each expert, (E, out, in).

        Args:
            name: Name of the tensor.
            shape: Shape to return.
            is_turned: Whether the stored tensor is (E, in, out).
        """
        ...
