"""Integer matrices whose groups share a scale and a zero: scale * (number - zero).

MLX's affine matrices are scale * number + bias, so bias = -scale * zero. Published scales have at most 11
bits and zeros 8, so float32 holds their product exactly. bfloat16 and float16 round it, unless the zero is a
power of two, which it is if quantization is symmetric.

Axes: G groups of a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.config.quantize import AFFINE_GROUP_SIZES
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.matrix import in_order
from metal_gen.models.matrices.quantized import WORD_BITS, Packing, QuantizedMatrix

# Dtype of packed numbers: signed in the files, although the numbers are not.
SIGNED_WORDS = ("I32",)


@dataclass(frozen=True)
class Groups:
    """How the numbers of a row are grouped.

    Attributes:
        bits: Bits per number.
        size: Numbers in a group; None if a whole row is one group.
    """

    bits: int
    size: int | None

    def size_in(self, width: int) -> int:
        """Return the numbers per group in a row of this width. The last group may have fewer."""
        return min(self.size or width, width)

    def count(self, width: int) -> int:
        """Return G for a row of this width."""
        return -(-width // self.size_in(width))

    def packing(self, name: str, width: int, found: TensorInfo) -> Packing:
        """Return MLX's packing of a row of this width, with the largest groups that divide these groups.

        Args:
            name: Name of the matrix.
            width: Width of its rows.
            found: One of its tensors, for the error message.

        Raises:
            CheckpointError: MLX has no such groups.
        """
        size = self.size_in(width)
        for mlx_size in sorted(AFFINE_GROUP_SIZES, reverse=True):
            if size % mlx_size == 0 and width % mlx_size == 0:
                return Packing(self.bits, mlx_size)
        raise CheckpointError(
            f"{name} in {found.path.name} has rows of {width} numbers in groups of {size}, which cannot be "
            f"split into groups of {', '.join(map(str, AFFINE_GROUP_SIZES))}"
        )

    def matrix(
        self, packed: mx.array, scales: mx.array, zeros: mx.array | int, packing: Packing, dtype: mx.Dtype
    ) -> QuantizedMatrix:
        """Return the matrix in MLX's form.

        Args:
            packed: Numbers packed along the rows, lowest bits first, (out, in * bits / 32) uint32.
            scales: Scales, (out, G).
            zeros: Zeros, (out, G), or one for all.
            packing: Packing for this width.
            dtype: Dtype of computation. Zeros are multiplied by the rounded scales, so that a number that
                is zero stays as close to zero as a bias of this dtype allows.
        """
        width = packed.shape[-1] * WORD_BITS // self.bits
        rounded = scales.astype(dtype)
        biases = (-rounded.astype(mx.float32) * zeros).astype(dtype)
        pieces = self.size_in(width) // packing.group_size

        def cut(of_groups: mx.array) -> mx.array:
            repeated = mx.repeat(of_groups, pieces, axis=-1)[:, : width // packing.group_size]
            return in_order(repeated)

        return QuantizedMatrix(packed, cut(rounded), cut(biases), packing, dtype)


def first_part(name: str, parts: Sequence[str], found: Mapping[str, TensorInfo]) -> TensorInfo | None:
    """Return the first tensor found of a quantized matrix, or None if it is not quantized."""
    return next((found[f"{name}.{part}"] for part in parts if f"{name}.{part}" in found), None)


def require_whole_words(name: str, outputs: int, bits: int, found: TensorInfo) -> None:
    """Check that the outputs, along which numbers are packed, fill whole words.

    Args:
        name: Name of the matrix.
        outputs: Number of its outputs.
        bits: Bits per packed number.
        found: One of its tensors, for the error message.

    Raises:
        CheckpointError: The outputs do not fill whole words.
    """
    per_word = WORD_BITS // bits
    if outputs % per_word:
        raise CheckpointError(
            f"{name} in {found.path.name} cannot be packed along its outputs: "
            f"it has {outputs}, which are not groups of {per_word}"
        )


def unpacked(words: mx.array, bits: int) -> mx.array:
    """Unpack words, (..., W), to numbers, (..., W * 32 / bits), lowest bits first. Bits must divide 32."""
    shifts = mx.arange(0, WORD_BITS, bits, dtype=mx.uint32)
    return ((words.view(mx.uint32)[..., None] >> shifts) & ((1 << bits) - 1)).flatten(-2)


def unpacking_bytes(words: TensorInfo, bits: int) -> int:
    """Return the bytes that unpacking takes: numbers, shifted and masked, and as floating-point numbers."""
    return 3 * words.nbytes * WORD_BITS // bits
