"""The two sources that a model is built from: one records the requests, and one reads the weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.checkpoint.adapters.stored import StoredAdapted, zeros_bytes
from metal_gen.checkpoint.file_arrays import fills_arrays
from metal_gen.checkpoint.matrix_forms import MatrixForms
from metal_gen.checkpoint.packed.stored import Stored, StoredNumbers, StoredPacked
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
        axis: Axis along which they are joined.
    """

    parts: tuple[Stored, ...]
    is_of_experts: bool = False
    axis: int = 0

    def is_copied(self, dtype: str, found: Mapping[str, TensorInfo]) -> bool:
        """Return whether the result is a joined copy, rather than read at once.

        Args:
            dtype: Dtype of computation.
            found: The tensors by the names used to request them.
        """
        return len(self.parts) > 1 and not read_at_once(self.parts, self.axis, dtype, found)

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
        self._note(parts, is_of_experts=axis == 1, axis=axis)
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

    def _note(self, parts: Sequence[Stored], *, is_of_experts: bool = False, axis: int = 0) -> None:
        self.requests.append(Request(tuple(parts), is_of_experts, axis))


def unread_array(shape: Shape) -> mx.array:
    """Return a stand-in for an unread array. It is empty if no array can have the shape.

    The check that a checkpoint has tensors of these shapes comes later, when all requests are known.
    """
    is_possible = max(shape, default=1) <= LARGEST_AXIS and math.prod(shape) <= LARGEST_SIZE
    return mx.zeros(shape if is_possible else (0,) * len(shape))


def read_at_once(parts: Sequence[Stored], axis: int, dtype: str, found: Mapping[str, TensorInfo]) -> bool:
    """Return whether weights are read into one array each, without parts that are joined afterwards.

    They must be stored alike, in the dtype of computation, and follow one another in the result.
    """
    if not fills_arrays() or axis != 0:
        return False
    if not all(isinstance(part, StoredNumbers | StoredPacked) for part in parts):
        return False
    forms = {(type(part), part.packing, *(found[name].dtype for name in part.tensors())) for part in parts}
    return len(forms) == 1 and not any(part.reading_bytes(dtype, found) for part in parts)


class WeightReader:
    """A source that reads, converts and joins weights.

    It computes each weight before the next is requested, so that memory holds the finished weights and the
    parts of only one other.

    Args:
        forms: Forms in which matrices are stored.
        files: Tensors of the checkpoint, with numbers in the dtype of computation.
        dtype: Name of that dtype.
    """

    def __init__(self, forms: MatrixForms, files: TensorFiles, dtype: str) -> None:
        self.forms = forms
        self._files = files
        self._dtype = dtype

    def shape_of(self, name: str) -> Shape | None:
        """Return the shape according to the file's header."""
        return self.forms.shape_of(name)

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Read one tensor."""
        return self._files.numbers(name)

    def vector(self, sizes: dict[str, int]) -> mx.array:
        """Read several tensors and join them."""
        vectors = [StoredNumbers(name, (size,)) for name, size in sizes.items()]
        if read_at_once(vectors, 0, self._dtype, self._files.tensors):
            return self._joined(vectors).arrays[0]
        return computed(mx.concatenate([self._files.numbers(name) for name in sizes]))

    def matrix(self, rows: dict[str, int], *columns: int, axis: int = 0) -> AnyMatrix:
        """Read several matrices and join them."""
        parts = self.forms.parts(rows, columns, axis)
        if read_at_once(parts, axis, self._dtype, self._files.tensors):
            return self._joined(parts)
        return join_adapted([part.read(self._files) for part in parts], axis)

    def _joined(self, parts: Sequence[Stored]) -> ArrayMatrix:
        """Read the parts as if they were stored as one."""
        first, *_ = parts
        together = zip(*(part.tensors() for part in parts), strict=True)
        matrix = first.read(self._files.joining(dict(zip(first.tensors(), together, strict=True))))
        assert not isinstance(matrix, AdaptedMatrix)
        return matrix

    def one_by_one(self, rows: dict[str, int], inputs: int, *, experts: int) -> ArrayMatrix:
        """Read the matrices of single experts and join them."""
        matrix = self.matrix(rows, inputs)
        assert not isinstance(matrix, JoinedMatrix | AdaptedMatrix)
        return by_expert(matrix, experts)

    def experts(self, name: str, *shape: int, is_turned: bool) -> ArrayMatrix:
        """Read a tensor with a matrix for each expert."""
        matrix = self.forms.stacked(name, shape, is_turned=is_turned).read(self._files)
        assert not isinstance(matrix, AdaptedMatrix)
        return matrix


def _form(part: Stored) -> str:
    return "plain numbers" if part.packing is None else str(part.packing)
