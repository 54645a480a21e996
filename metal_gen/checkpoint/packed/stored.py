"""What a checkpoint keeps a weight in: which tensors, what they take, and how they are read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from metal_gen.checkpoint.gguf.blocks import converting_bytes
from metal_gen.checkpoint.gguf.header import GgufTensor
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.device.backend import DTYPE_BYTES
from metal_gen.excerpt import excerpt
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.adapted import SingleMatrix
from metal_gen.models.matrices.matrix import DenseMatrix
from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix

# What is computed with, by the format's names.
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# By which numbers in FP8 are multiplied; named here, where nothing has to be loaded to know them.
FP8_SCALES = ("weight_scale_inv", "weight_scale")
# Of packed numbers.
WORDS = ("U32",)
# Of scales that are not floating-point numbers.
BYTES = ("U8",)


@dataclass(frozen=True)
class Expected:
    """A tensor that a checkpoint should have.

    Attributes:
        shape: Its shape.
        dtypes: Those that are read, as the format spells them.
    """

    shape: Shape
    dtypes: Sequence[str] = tuple(FLOATS)


def shown_shape(shape: Shape) -> str:
    """A shape as messages have it."""
    return excerpt(" x ".join(map(str, shape))) or "a scalar"


def shown_problems(problems: Sequence[str], most: int) -> str:
    """The first so many of what is wrong, and how many more there are."""
    more = len(problems) - most
    return "; ".join(problems[:most]) + (f"; and {more} more" if more > 0 else "")


class Stored(Protocol):
    """A weight in the form in which a checkpoint keeps it."""

    @property
    def shape(self) -> Shape:
        """Of the weight: (..., out, in) of a matrix."""
        ...

    @property
    def packing(self) -> Packing | None:
        """How it is quantized once it is read; None if it is not."""
        ...

    def tensors(self) -> dict[str, Expected]:
        """Those it is kept in, by name."""
        ...

    def nbytes(self, dtype: str) -> int:
        """Bytes in memory, computed with in this dtype."""
        ...

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """The most that reading takes besides, at one time."""
        ...

    def read(self, files: TensorFiles) -> SingleMatrix:
        """Read it, computed."""
        ...


class Method(Protocol):
    """How a program other than MLX has quantized a checkpoint."""

    def form(self, name: str, shape: Shape, found: Mapping[str, TensorInfo]) -> Stored | None:
        """The form of a matrix (out, in), without `.weight`; None if it is not quantized.

        Raises:
            CheckpointError: It cannot be computed with.
        """
        ...


class NotQuantized:
    """Said by a program that has quantized something else than the matrices."""

    def form(self, name: str, shape: Shape, found: Mapping[str, TensorInfo]) -> None:
        """None of them."""


@dataclass(frozen=True)
class StoredNumbers:
    """A weight kept as plain numbers.

    Args:
        name: Of its tensor.
        shape: Of the weight.
        is_turned: The tensor's last two axes are exchanged.
    """

    name: str
    shape: Shape
    is_turned: bool = False
    packing: None = None

    def tensors(self) -> dict[str, Expected]:
        """One."""
        turned = (*self.shape[:-2], *self.shape[:-3:-1])
        return {self.name: Expected(turned if self.is_turned else self.shape)}

    def nbytes(self, dtype: str) -> int:
        """Bytes in memory, computed with in this dtype."""
        return math.prod(self.shape) * DTYPE_BYTES[dtype]

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """What is stored in another dtype or turned is converted beside itself; GGUF, in parts."""
        stored = found[self.name]
        if isinstance(stored, GgufTensor):
            return converting_bytes(math.prod(self.shape))
        converted = stored.nbytes if FLOATS[stored.dtype] != dtype else 0
        return max(converted, self.nbytes(dtype) if self.is_turned else 0)

    def read(self, files: TensorFiles) -> DenseMatrix:
        """Read it, computed."""
        numbers = files.numbers(self.name)
        if self.is_turned:
            numbers = mx.contiguous(numbers.swapaxes(-1, -2))
            mx.eval(numbers)
        return DenseMatrix(numbers)


@dataclass(frozen=True)
class StoredPacked:
    """A matrix kept quantized, as MLX packs numbers.

    Args:
        name: Without `.weight`.
        shape: Of the matrix.
        packing: Of its numbers, which divides its rows.
    """

    name: str
    shape: Shape
    packing: Packing

    def tensors(self) -> dict[str, Expected]:
        """Packed numbers, scales and, if affine, biases."""
        scales = Expected(
            self.packing.scales_shape(self.shape), tuple(FLOATS) if self.packing.has_biases else BYTES
        )
        tensors = {
            f"{self.name}.weight": Expected(self.packing.packed_shape(self.shape), WORDS),
            f"{self.name}.scales": scales,
        }
        return {**tensors, f"{self.name}.biases": scales} if self.packing.has_biases else tensors

    def nbytes(self, dtype: str) -> int:
        """Bytes in memory, computed with in this dtype."""
        return self.packing.nbytes(self.shape, DTYPE_BYTES[dtype])

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """Scales that are stored in another dtype are converted beside themselves."""
        scales = found[f"{self.name}.scales"]
        return scales.nbytes if FLOATS.get(scales.dtype, dtype) != dtype else 0

    def read(self, files: TensorFiles) -> QuantizedMatrix:
        """Read it, computed."""

        def number_or_byte(name: str) -> mx.array:
            return files.numbers(name) if self.packing.has_biases else files.stored(name)

        return QuantizedMatrix(
            packed=files.stored(f"{self.name}.weight"),
            scales=number_or_byte(f"{self.name}.scales"),
            biases=files.numbers(f"{self.name}.biases") if self.packing.has_biases else None,
            packing=self.packing,
            dtype=files.dtype,
        )
