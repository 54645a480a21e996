"""Matrices of whole numbers whose groups share a scale and a zero: scale * (number - zero).

MLX's affine matrices are scale * number + bias, so that bias = -scale * zero. Scales are published with 11
bits or fewer and zeros have 8, so that float32 holds their product exactly. In bfloat16 and float16 the
product is rounded, unless the zero is a power of two, which it is wherever quantization is symmetric.

Axes: G groups of a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.config.quantize import AFFINE_GROUP_SIZES
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.matrix import computed
from metal_gen.models.matrices.quantized import WORD_BITS, Packing, QuantizedMatrix

# Of packed numbers: signed in the files, though the numbers are not.
SIGNED_WORDS = ("I32",)


@dataclass(frozen=True)
class Groups:
    """How the numbers of a row are grouped.

    Attributes:
        bits: Of each number.
        size: Numbers of a group; None where a whole row is one.
    """

    bits: int
    size: int | None

    def size_in(self, width: int) -> int:
        """Numbers of a group in a row of this width, of which the last may have fewer."""
        return min(self.size or width, width)

    def count(self, width: int) -> int:
        """G of a row of this width."""
        return -(-width // self.size_in(width))

    def packing(self, name: str, width: int, found: TensorInfo) -> Packing:
        """How MLX packs a row of this width: in the largest groups that each belong to one of these.

        Args:
            name: Of the matrix.
            width: Of its rows.
            found: One of its tensors, for the message.

        Raises:
            CheckpointError: There are none.
        """
        size = self.size_in(width)
        for mlx_size in sorted(AFFINE_GROUP_SIZES, reverse=True):
            if size % mlx_size == 0 and width % mlx_size == 0:
                return Packing(self.bits, mlx_size)
        raise CheckpointError(
            f"{name} in {found.path.name} has rows of {width} numbers in groups of {size}, and only such are "
            f"read as can be cut into groups of {', '.join(map(str, AFFINE_GROUP_SIZES))}"
        )

    def matrix(
        self, packed: mx.array, scales: mx.array, zeros: mx.array | int, packing: Packing, dtype: mx.Dtype
    ) -> QuantizedMatrix:
        """The matrix in the form that MLX computes with.

        Args:
            packed: (out, in * bits / 32) uint32, packed along the rows, lowest bits first.
            scales: (out, G).
            zeros: (out, G) or one for all.
            packing: Of this width.
            dtype: Computed with. Zeros are multiplied by the rounded scales, so that a number that is zero
                stays so as nearly as a bias of this dtype allows.
        """
        width = packed.shape[-1] * WORD_BITS // self.bits
        rounded = scales.astype(dtype)
        biases = (-rounded.astype(mx.float32) * zeros).astype(dtype)
        pieces = self.size_in(width) // packing.group_size

        def cut(of_groups: mx.array) -> mx.array:
            repeated = mx.repeat(of_groups, pieces, axis=-1)[:, : width // packing.group_size]
            return computed(mx.contiguous(repeated))

        return QuantizedMatrix(packed, cut(rounded), cut(biases), packing, dtype)


def first_part(name: str, parts: Sequence[str], found: Mapping[str, TensorInfo]) -> TensorInfo | None:
    """The first tensor that there is of a quantized matrix; None if it is not quantized."""
    return next((found[f"{name}.{part}"] for part in parts if f"{name}.{part}" in found), None)


def require_whole_words(name: str, outputs: int, bits: int, found: TensorInfo) -> None:
    """See that what is packed along the outputs fills its words.

    Args:
        name: Of the matrix.
        outputs: It has.
        bits: Of a packed number.
        found: One of its tensors, for the message.

    Raises:
        CheckpointError: It does not.
    """
    per_word = WORD_BITS // bits
    if outputs % per_word:
        raise CheckpointError(
            f"{name} in {found.path.name} cannot be packed along its outputs: "
            f"it has {outputs}, which are not groups of {per_word}"
        )


def unpacked(words: mx.array, bits: int) -> mx.array:
    """The numbers of words, (..., W) to (..., W * 32 / bits), lowest bits first; bits divide 32."""
    shifts = mx.arange(0, WORD_BITS, bits, dtype=mx.uint32)
    return ((words.view(mx.uint32)[..., None] >> shifts) & ((1 << bits) - 1)).flatten(-2)


def unpacking_bytes(words: TensorInfo, bits: int) -> int:
    """What unpacking takes: the numbers, shifted and masked, and as floating-point numbers."""
    return 3 * words.nbytes * WORD_BITS // bits
