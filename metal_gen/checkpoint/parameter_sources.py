"""The two sources that a model is built from: one records the requests, and one reads the weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.checkpoint.adapters.stored import StoredAdapted, zeros_bytes
from metal_gen.checkpoint.matrix_forms import MatrixForms
from metal_gen.checkpoint.packed.stored import Stored, StoredNumbers
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.adapted import AdaptedMatrix, AnyMatrix, join_adapted
from metal_gen.models.matrices.matrix import ArrayMatrix, DenseMatrix, JoinedMatrix, by_expert, computed
from metal_gen.models.matrices.parameters import Shape

# Limits of MLX: for an axis, and for an array.
LARGEST_AXIS, LARGEST_SIZE = 2**31 - 1, 2**63 - 1


@dataclass(frozen=True)
class Request:
    """Weights that are requested at once.

    Attributes:
        parts: The weights, in the form in which they are stored.
        is_of_experts: Whether they are the weights of all experts, of which a token needs a few.
    """

    parts: tuple[Stored, ...]
    is_of_experts: bool = False

    @property
    def is_copied(self) -> bool:
        """Whether the result is a joined copy, rather than the only part itself."""
        return len(self.parts) > 1

    @property
    def is_apart(self) -> bool:
        """Whether the result is multiplied in several products, for its parts or for an adapter."""
        is_adapted = any(isinstance(part, StoredAdapted) and part.rank_beside for part in self.parts)
        return is_adapted or len({part.packing for part in self.parts}) > 1

    def nbytes(self, dtype: str) -> int:
        """Return the bytes in memory, if computed with in this dtype."""
        return sum(part.nbytes(dtype) for part in self.parts) + zeros_bytes(self.parts, dtype)


class WeightRecorder:
    """A source that records the requests and answers with unevaluated zeros.

    Args:
        forms: Forms in which matrices are stored.

    Attributes:
        requests: All requests, in order.
    """

    def __init__(self, forms: MatrixForms) -> None:
        self.forms = forms
        self.requests: list[Request] = []

    def shape_of(self, name: str) -> Shape | None:
        """Return the shape according to the file's header."""
        return self.forms.shape_of(name)

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Record the name and shape."""
        self._note([StoredNumbers(name, shape)])
        return unread_array(shape)

    def vector(self, sizes: dict[str, int]) -> mx.array:
        """Record each part."""
        self._note([StoredNumbers(name, (size,)) for name, size in sizes.items()])
        return unread_array((sum(sizes.values()),))

    def matrix(self, rows: dict[str, int], *columns: int, axis: int = 0) -> DenseMatrix:
        """Record each part."""
        parts = self.forms.parts(rows, columns, axis)
        self._note(parts, is_of_experts=axis == 1)
        return DenseMatrix(unread_array((*columns[:axis], sum(rows.values()), *columns[axis:])))

    def one_by_one(self, rows: dict[str, int], inputs: int, *, experts: int) -> DenseMatrix:
        """Record each part. All must be stored in the same form."""
        parts = self.forms.parts(rows, (inputs,), 0)
        for name, part in zip(rows, parts, strict=True):
            if isinstance(part, StoredAdapted) and part.rank_beside:
                raise CheckpointError(
                    f"adapters cannot be added to single quantized experts: {name}",
                    "use an adapter that leaves experts alone, or a checkpoint that is not quantized",
                )
            if part.packing != parts[0].packing:
                raise CheckpointError(
                    f"the experts of a layer must be stored alike: {next(iter(rows))} has "
                    f"{_form(parts[0])} and {name} has {_form(part)}"
                )
        self._note(parts, is_of_experts=True)
        return DenseMatrix(unread_array((experts, sum(rows.values()) // experts, inputs)))

    def experts(self, name: str, *shape: int, is_turned: bool) -> DenseMatrix:
        """Record the tensor."""
        self._note([self.forms.stacked(name, shape, is_turned=is_turned)], is_of_experts=True)
        return DenseMatrix(unread_array(shape))

    def _note(self, parts: Sequence[Stored], *, is_of_experts: bool = False) -> None:
        self.requests.append(Request(tuple(parts), is_of_experts))


def unread_array(shape: Shape) -> mx.array:
    """Return a stand-in for an unread array. It is empty if no array can have the shape.

    The check that a checkpoint has tensors of these shapes comes later, when all requests are known.
    """
    is_possible = max(shape, default=1) <= LARGEST_AXIS and math.prod(shape) <= LARGEST_SIZE
    return mx.zeros(shape if is_possible else (0,) * len(shape))


class WeightReader:
    """A source that reads, converts and joins weights.

    It computes each weight before the next is requested, so that memory holds the finished weights and the
    parts of only one other.

    Args:
        forms: Forms in which matrices are stored.
        tensors: Tensors of the checkpoint, which have been checked.
        dtype: Dtype of computation.
    """

    def __init__(self, forms: MatrixForms, tensors: Mapping[str, TensorInfo], dtype: mx.Dtype) -> None:
        self.forms = forms
        self.files = TensorFiles(tensors, dtype)

    def shape_of(self, name: str) -> Shape | None:
        """Return the shape according to the file's header."""
        return self.forms.shape_of(name)

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Read one tensor."""
        return self.files.numbers(name)

    def vector(self, sizes: dict[str, int]) -> mx.array:
        """Read several tensors and join them."""
        return computed(mx.concatenate([self.files.numbers(name) for name in sizes]))

    def matrix(self, rows: dict[str, int], *columns: int, axis: int = 0) -> AnyMatrix:
        """Read several matrices and join them."""
        return join_adapted([part.read(self.files) for part in self.forms.parts(rows, columns, axis)], axis)

    def one_by_one(self, rows: dict[str, int], inputs: int, *, experts: int) -> ArrayMatrix:
        """Read the matrices of single experts and join them."""
        matrix = self.matrix(rows, inputs)
        assert not isinstance(matrix, JoinedMatrix | AdaptedMatrix)
        return by_expert(matrix, experts)

    def experts(self, name: str, *shape: int, is_turned: bool) -> ArrayMatrix:
        """Read a tensor with a matrix for each expert."""
        matrix = self.forms.stacked(name, shape, is_turned=is_turned).read(self.files)
        assert not isinstance(matrix, AdaptedMatrix)
        return matrix


def _form(part: Stored) -> str:
    return "plain numbers" if part.packing is None else str(part.packing)
