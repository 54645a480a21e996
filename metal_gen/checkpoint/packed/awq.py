"""Reads AWQ matrices: packed along the outputs, eight to a word, in an order of its own.

Source: the layout `gemm` of AutoAWQ.

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
from metal_gen.models.matrices.matrix import computed, in_order
from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix

AWQ_BITS = 4
PER_WORD = 8
# Position in a word, from the lowest bits, of each of eight neighboring outputs.
PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
PARTS = ("qweight", "qzeros", "scales")


@dataclass(frozen=True)
class Awq:
    """AWQ quantization according to config.json."""

    groups: Groups

    def form(self, name: str, shape: Shape, found: Mapping[str, TensorInfo]) -> "StoredAwq | None":
        """Return the form of a matrix, or None if it is not quantized.

        Raises:
            CheckpointError: Its outputs or inputs cannot be packed.
        """
        part = first_part(name, PARTS, found)
        if part is None:
            return None
        require_whole_words(name, shape[0], AWQ_BITS, part)
        return StoredAwq(name, shape, self.groups, self.groups.packing(name, shape[1], part))


@dataclass(frozen=True)
class StoredAwq:
    """A matrix stored as AWQ stores it.

    Args:
        name: Name without `.qweight`.
        shape: Shape of the matrix.
        groups: Groups that share a scale and a zero.
        packing: Packing after reading.
    """

    name: str
    shape: Shape
    groups: Groups
    packing: Packing

    def tensors(self) -> dict[str, Expected]:
        """Return packed numbers (in, out / 8), packed zeros (G, out / 8) and scales (G, out)."""
        out, width = self.shape
        count = self.groups.count(width)
        return {
            f"{self.name}.qweight": Expected((width, out // PER_WORD), SIGNED_WORDS),
            f"{self.name}.qzeros": Expected((count, out // PER_WORD), SIGNED_WORDS),
            f"{self.name}.scales": Expected((count, out)),
        }

    def nbytes(self, dtype: str) -> int:
        """Return the bytes in memory, if computed with in this dtype."""
        return self.packing.nbytes(self.shape, DTYPE_BYTES[dtype])

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """Return the bytes of the stored words, one of eight unpacked outputs, and the finished outputs."""
        words, zeros = found[f"{self.name}.qweight"], found[f"{self.name}.qzeros"]
        return max(3 * words.nbytes, unpacking_bytes(zeros, AWQ_BITS))

    def read(self, files: TensorFiles) -> QuantizedMatrix:
        """Read and compute the matrix."""
        packed = _packed_along_inputs(files.stored(f"{self.name}.qweight").view(mx.uint32))
        in_places = unpacked(files.stored(f"{self.name}.qzeros"), AWQ_BITS)
        zeros = in_places.reshape(-1, PER_WORD)[:, mx.array(PLACES)].reshape(in_places.shape)
        scales = files.stored(f"{self.name}.scales")
        return self.groups.matrix(packed, scales.T, zeros.T, self.packing, files.dtype)


def _packed_along_inputs(words: mx.array) -> mx.array:
    """Repack (in, out / 8) to (out, in / 8), lowest bits first."""
    width, count = words.shape
    inputs = words.reshape(width // PER_WORD, PER_WORD, count)
    shifts = mx.arange(0, 32, AWQ_BITS, dtype=mx.uint32)[:, None]

    def outputs_in(place: int) -> mx.array:
        """Return one of eight outputs, (in / 8, out / 8), computed before the next one takes memory."""
        numbers = (inputs >> (AWQ_BITS * place)) & 15
        return computed((numbers << shifts).sum(axis=1))

    packed = mx.stack([outputs_in(place) for place in PLACES], axis=-1).reshape(width // PER_WORD, -1)
    return in_order(packed.T)
