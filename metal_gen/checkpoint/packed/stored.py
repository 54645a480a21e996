"""How a checkpoint stores a weight: its tensors, its size in memory, and how it is read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from metal_gen.checkpoint.gguf.blocks.read import converting_bytes
from metal_gen.checkpoint.gguf.header import GgufTensor
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.device.backend import DTYPE_BYTES
from metal_gen.excerpt import excerpt
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.adapted import SingleMatrix
from metal_gen.models.matrices.matrix import DenseMatrix, computed
from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix

# Dtypes of computation, by the format's names.
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Names of FP8 scales, defined here because this module loads little.
FP8_SCALES = ("weight_scale_inv", "weight_scale")
# Dtype of packed numbers.
WORDS = ("U32",)
# Dtype of scales that are not floating-point numbers.
BYTES = ("U8",)


@dataclass(frozen=True)
class Expected:
    """A tensor that a checkpoint should have.

    Attributes:
        shape: Shape of the tensor.
        dtypes: Supported dtypes, as the format spells them.
    """

    shape: Shape
    dtypes: Sequence[str] = tuple(FLOATS)


def shown_shape(shape: Shape) -> str:
    """Format a shape for messages."""
    return excerpt(" x ".join(map(str, shape))) or "a scalar"


def shown_problems(problems: Sequence[str], most: int) -> str:
    """Join the first `most` problems, and say how many more there are."""
    more = len(problems) - most
    return "; ".join(problems[:most]) + (f"; and {more} more" if more > 0 else "")


class Stored(Protocol):
    """A weight in the form in which a checkpoint stores it."""

    @property
    def shape(self) -> Shape:
        """Shape of the weight; (..., out, in) for a matrix."""
        ...

    @property
    def packing(self) -> Packing | None:
        """Packing after reading; None if it is not quantized."""
        ...

    def tensors(self) -> dict[str, Expected]:
        """Return the tensors that hold the weight, by name."""
        ...

    def nbytes(self, dtype: str) -> int:
        """Return the bytes in memory, if computed with in this dtype."""
        ...

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """Return the peak memory that reading takes in addition."""
        ...

    def read(self, files: TensorFiles) -> SingleMatrix:
        """Read and compute the weight."""
        ...


class Method(Protocol):
    """How a program other than MLX quantizes matrices."""

    def form(self, name: str, shape: Shape, found: Mapping[str, TensorInfo]) -> Stored | None:
        """Return the form of a matrix (out, in), named without `.weight`, or None if it is not quantized.

        Raises:
            CheckpointError: The form is not supported.
        """
        ...


class NotQuantized:
    """A method that has quantized something other than the matrices."""

    def form(self, name: str, shape: Shape, found: Mapping[str, TensorInfo]) -> None:
        """Return None: no matrix is quantized."""


@dataclass(frozen=True)
class StoredNumbers:
    """A weight stored as unquantized numbers.

    Args:
        name: Name of its tensor.
        shape: Shape of the weight.
        is_turned: Whether the tensor's last two axes are swapped.
    """

    name: str
    shape: Shape
    is_turned: bool = False
    packing: None = None

    def tensors(self) -> dict[str, Expected]:
        """Return the only tensor."""
        turned = (*self.shape[:-2], *self.shape[:-3:-1])
        return {self.name: Expected(turned if self.is_turned else self.shape)}

    def nbytes(self, dtype: str) -> int:
        """Return the bytes in memory, if computed with in this dtype."""
        return math.prod(self.shape) * DTYPE_BYTES[dtype]

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """Return the bytes of a converted or transposed copy; GGUF tensors are converted in parts."""
        stored = found[self.name]
        if isinstance(stored, GgufTensor):
            return converting_bytes(math.prod(self.shape))
        converted = stored.nbytes if FLOATS[stored.dtype] != dtype else 0
        return max(converted, self.nbytes(dtype) if self.is_turned else 0)

    def read(self, files: TensorFiles) -> DenseMatrix:
        """Read and compute the weight."""
        numbers = files.numbers(self.name)
        if self.is_turned:
            numbers = computed(mx.contiguous(numbers.swapaxes(-1, -2)))
        return DenseMatrix(numbers)


@dataclass(frozen=True)
class StoredPacked:
    """A matrix stored quantized, as MLX packs numbers.

    Args:
        name: Name without `.weight`.
        shape: Shape of the matrix.
        packing: Packing of its numbers; its groups divide the rows.
    """

    name: str
    shape: Shape
    packing: Packing

    def tensors(self) -> dict[str, Expected]:
        """Return packed numbers, scales and, if affine, biases."""
        scales = Expected(
            self.packing.scales_shape(self.shape), tuple(FLOATS) if self.packing.has_biases else BYTES
        )
        tensors = {
            f"{self.name}.weight": Expected(self.packing.packed_shape(self.shape), WORDS),
            f"{self.name}.scales": scales,
        }
        return {**tensors, f"{self.name}.biases": scales} if self.packing.has_biases else tensors

    def nbytes(self, dtype: str) -> int:
        """Return the bytes in memory, if computed with in this dtype."""
        return self.packing.nbytes(self.shape, DTYPE_BYTES[dtype])

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """Return the bytes of a converted copy of the scales, if they are stored in another dtype."""
        scales = found[f"{self.name}.scales"]
        return scales.nbytes if FLOATS.get(scales.dtype, dtype) != dtype else 0

    def read(self, files: TensorFiles) -> QuantizedMatrix:
        """Read and compute the matrix."""

        def number_or_byte(name: str) -> mx.array:
            return files.numbers(name) if self.packing.has_biases else files.stored(name)

        return QuantizedMatrix(
            packed=files.stored(f"{self.name}.weight"),
            scales=number_or_byte(f"{self.name}.scales"),
            biases=files.numbers(f"{self.name}.biases") if self.packing.has_biases else None,
            packing=self.packing,
            dtype=files.dtype,
        )
