"""Quantized matrices, packed as MLX packs them.

Source: the documentation of `mlx.core.quantize`.

Axes: R rows, E experts, G numbers that share a scale.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu, runs_on_cuda
from metal_gen.device.extra_memory import wait_for_release
from metal_gen.models.kernels.quantized_product import can_multiply, quantized_product
from metal_gen.models.matrices.matrix import Matrix, in_order

WORD_BITS = 32
# Numbers to quantize at a time where that takes many times their memory, and the measured memory.
PIECE_NUMBERS = 1 << 16
PIECE_BYTES = 48 * PIECE_NUMBERS
# Smallest groups that MLX's kernel for Hopper takes.
HOPPER_GROUP = 64


@dataclass(frozen=True)
class Packing:
    """How numbers are quantized.

    Attributes:
        bits: Bits per number.
        group_size: G.
        mode: `affine`, `mxfp4`, `mxfp8` or `nvfp4`.
    """

    bits: int
    group_size: int
    mode: str = "affine"

    @property
    def has_biases(self) -> bool:
        """Whether groups have an offset in addition to their scale, both floating-point numbers."""
        return self.mode == "affine"

    @property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments for MLX's functions on quantized matrices."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def divides(self, width: int) -> bool:
        """Return whether rows of this width consist of whole groups and whole packed words."""
        return width % self.group_size == 0 and width * self.bits % WORD_BITS == 0

    def packed_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the packed numbers of a matrix (..., in)."""
        return (*shape[:-1], shape[-1] * self.bits // WORD_BITS)

    def scales_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the scales, and of the biases if there are any, of a matrix (..., in)."""
        return (*shape[:-1], shape[-1] // self.group_size)

    def nbytes(self, shape: tuple[int, ...], float_bytes: int) -> int:
        """Return the bytes of a matrix (..., in), given the bytes of a floating-point number."""
        words, scales = math.prod(self.packed_shape(shape)), math.prod(self.scales_shape(shape))
        return 4 * words + (2 * float_bytes if self.has_biases else 1) * scales

    def __str__(self) -> str:
        kind = f"{self.bits} bits" if self.mode == "affine" else self.mode
        return f"{kind} in groups of {self.group_size}"


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix of packed numbers.

    Args:
        packed: Packed numbers, (..., out, in * bits / 32) uint32.
        scales: Scales, (..., out, in / G), floating-point if affine, else uint8.
        biases: Offsets, shaped like the scales; None unless affine.
        packing: Bits, G and mode.
        dtype: Dtype of results.
        by_kernel: Whether a kernel multiplies a few rows, which passes its trial here for this packing.
    """

    packed: mx.array
    scales: mx.array
    biases: mx.array | None
    packing: Packing
    dtype: mx.Dtype
    by_kernel: bool = False

    @classmethod
    def quantize(cls, numbers: mx.array, packing: Packing) -> "QuantizedMatrix":
        """Quantize plain numbers, (..., out, in)."""
        if runs_on_cpu() and not packing.has_biases:
            packed, scales = _quantized_in_pieces(numbers, packing)
            return cls(packed, scales, None, packing, numbers.dtype)
        packed, scales, *biases = mx.quantize(numbers, **packing.keywords)
        mx.eval(packed, scales, *biases)
        wait_for_release()
        return cls(packed, scales, biases[0] if biases else None, packing, numbers.dtype)

    def computing_in(self, dtype: mx.Dtype) -> "QuantizedMatrix":
        """Return the same numbers, for results of another dtype."""
        if self.biases is None:
            return replace(self, dtype=dtype)
        scales, biases = self.scales.astype(dtype), self.biases.astype(dtype)
        mx.eval(scales, biases)
        wait_for_release()
        return replace(self, scales=scales, biases=biases, dtype=dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (E, out, in)."""
        return (*self.scales.shape[:-1], self.scales.shape[-1] * self.packing.group_size)

    @property
    def arrays(self) -> list[mx.array]:
        """All arrays of the matrix."""
        return [array for array in (self.packed, self.scales, self.biases) if array is not None]

    def of(self, arrays: Sequence[mx.array]) -> "QuantizedMatrix":
        """Return a matrix of the same form, made of other arrays."""
        packed, scales, *biases = arrays
        return replace(self, packed=packed, scales=scales, biases=biases[0] if biases else None)

    def is_like(self, other: Matrix) -> bool:
        """Return whether the other matrix has the same form, so that the two can be joined in memory."""
        return (
            isinstance(other, QuantizedMatrix) and self.packing == other.packing and self.dtype == other.dtype
        )

    @cached_property
    def for_products(self) -> "QuantizedMatrix":
        """The same matrix in a form whose products MLX computes on this device.

        Where a row is a single group, MLX's kernel for Hopper gives numbers without meaning. With float32 and
        groups of 128, its CUDA kernel for prompts wants more shared memory than it asks for, and does not
        start. Both do well with the same scales for groups of half the size.
        """
        size = self.packing.group_size
        is_single = size >= HOPPER_GROUP and self.scales.shape[-1] == 1
        is_too_large = size > HOPPER_GROUP and self.dtype == mx.float32
        if self.biases is None or not (is_single or is_too_large) or not runs_on_cuda():
            return self
        # A repeated column would only be a view of it.
        scales, biases = (in_order(mx.repeat(each, 2, axis=-1)) for each in (self.scales, self.biases))
        return replace(
            self, scales=scales, biases=biases, packing=replace(self.packing, group_size=size // 2)
        )

    def times(self, rows: mx.array, bias: mx.array | None = None) -> mx.array:
        """Map (R, in) to (R, out), and add the bias."""
        form = self.for_products
        if self.by_kernel and form.biases is not None and can_multiply(rows, form.packed, form.scales):
            product = quantized_product(rows, form.packed, form.scales, form.biases)
        else:
            keywords = form.packing.keywords
            product = mx.quantized_matmul(rows, form.packed, form.scales, form.biases, **keywords)
        return product if bias is None else product + bias

    def take(self, places: mx.array) -> mx.array:
        """Return the rows at these places: (R,) to (R, in)."""
        return self.of([array[places] for array in self.arrays]).dequantized()

    def dequantized(self) -> mx.array:
        """Return the plain numbers, in the shape of the matrix."""
        keywords = self.packing.keywords
        return mx.dequantize(self.packed, self.scales, self.biases, dtype=self.dtype, **keywords)


def _quantized_in_pieces(numbers: mx.array, packing: Packing) -> tuple[mx.array, mx.array]:
    """Return packed numbers and scales, quantizing some rows at a time.

    To find the nearest representable value, MLX on a CPU makes an array of all such values for every
    number.
    """
    rows = numbers.reshape(-1, numbers.shape[-1])
    count = max(1, PIECE_NUMBERS // rows.shape[1])
    parts: list[Sequence[mx.array]] = []
    for start in range(0, rows.shape[0], count):
        parts.append(mx.quantize(rows[start : start + count], **packing.keywords))
        mx.eval(parts[-1])
    packed, scales = (
        mx.concatenate(of_parts).reshape(*numbers.shape[:-1], -1)
        for of_parts in ([part[place] for part in parts] for place in range(2))
    )
    mx.eval(packed, scales)
    return packed, scales
