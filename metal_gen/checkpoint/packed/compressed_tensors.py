"""Reads integer matrices of compressed-tensors: packed along the inputs, as MLX packs them.

Source: `pack_quantized` of compressed-tensors. It adds the same offset to numbers and zeros to make them
positive, so their difference is unchanged.

Axes: G groups of inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.checkpoint.packed.groups import (
    SIGNED_WORDS,
    Groups,
    first_part,
    require_whole_words,
    unpacked,
    unpacking_bytes,
)
from metal_gen.checkpoint.packed.stored import Expected
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.device.backend import DTYPE_BYTES
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.matrix import computed
from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.matrices.quantized import WORD_BITS, Packing, QuantizedMatrix

PACK_QUANTIZED_BITS = (4, 8)
PARTS = ("weight_packed", "weight_scale", "weight_zero_point")


@dataclass(frozen=True)
class PackQuantized:
    """Quantization by compressed-tensors according to config.json.

    Attributes:
        groups: Groups that share a scale and a zero.
        is_symmetric: Whether zeros are the middle of the range and not stored.
    """

    groups: Groups
    is_symmetric: bool

    def form(self, name: str, shape: Shape, found: Mapping[str, TensorInfo]) -> "StoredPackQuantized | None":
        """Return the form of a matrix, or None if it is not quantized.

        Raises:
            CheckpointError: Its outputs or inputs cannot be packed.
        """
        part = first_part(name, PARTS, found)
        if part is None:
            return None
        if not self.is_symmetric:  # Only zeros are packed along the outputs.
            require_whole_words(name, shape[0], self.groups.bits, part)
        packing = self.groups.packing(name, shape[1], part)
        return StoredPackQuantized(name, shape, self, packing)


@dataclass(frozen=True)
class StoredPackQuantized:
    """A matrix stored as compressed-tensors stores it.

    Args:
        name: Name without `.weight_packed`.
        shape: Shape of the matrix.
        method: Quantization according to config.json.
        packing: Packing after reading.
    """

    name: str
    shape: Shape
    method: PackQuantized
    packing: Packing

    def tensors(self) -> dict[str, Expected]:
        """Return packed (out, in * bits / 32), scales (out, G), zeros (out * bits / 32, G), and the shape."""
        (out, width), bits = self.shape, self.packing.bits
        count = self.method.groups.count(width)
        tensors = {
            f"{self.name}.weight_packed": Expected((out, width * bits // WORD_BITS), SIGNED_WORDS),
            f"{self.name}.weight_scale": Expected((out, count)),
            f"{self.name}.weight_shape": Expected((2,), ("I64", "I32")),
        }
        if not self.method.is_symmetric:
            zeros = Expected((out * bits // WORD_BITS, count), SIGNED_WORDS)
            tensors[f"{self.name}.weight_zero_point"] = zeros
        return tensors

    def nbytes(self, dtype: str) -> int:
        """Return the bytes in memory, if computed with in this dtype."""
        return self.packing.nbytes(self.shape, DTYPE_BYTES[dtype])

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """Return the bytes of the unpacked zeros. Numbers stay packed."""
        zeros = found.get(f"{self.name}.weight_zero_point")
        return 0 if zeros is None else unpacking_bytes(zeros, self.packing.bits)

    def read(self, files: TensorFiles) -> QuantizedMatrix:
        """Read and compute the matrix."""
        bits = self.packing.bits
        zeros: mx.array | int = 1 << (bits - 1)
        if not self.method.is_symmetric:
            zeros = unpacked(files.stored(f"{self.name}.weight_zero_point").T, bits)
            zeros = zeros.reshape(-1, self.shape[0]).T
        packed = computed(files.stored(f"{self.name}.weight_packed").view(mx.uint32))
        scales = files.stored(f"{self.name}.weight_scale")
        return self.method.groups.matrix(packed, scales, zeros, self.packing, files.dtype)
