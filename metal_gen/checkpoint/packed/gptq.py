"""Reads GPTQ matrices: packed along the inputs, as in MLX, but with inputs as rows.

Source: AutoGPTQ and GPTQModel, formats `gptq` and `gptq_v2`.

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
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.matrix import in_order
from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.matrices.quantized import WORD_BITS, Packing, QuantizedMatrix

GPTQ_BITS = (2, 4, 8)
PARTS = ("qweight", "qzeros", "scales", "g_idx")


@dataclass(frozen=True)
class Gptq:
    """GPTQ quantization according to config.json.

    Attributes:
        groups: Groups that share a scale and a zero.
        has_zeros_less_one: Whether stored zeros are 1 less, as in the format `gptq` but not in `gptq_v2`.
        is_symmetric: Whether all zeros are the middle of the range. Published checkpoints that say so may
            store zeros of either format, whichever they name.
    """

    groups: Groups
    has_zeros_less_one: bool
    is_symmetric: bool = False

    def form(self, name: str, shape: Shape, found: Mapping[str, TensorInfo]) -> "StoredGptq | None":
        """Return the form of a matrix, or None if it is not quantized.

        Raises:
            CheckpointError: Its outputs or inputs cannot be packed.
        """
        part = first_part(name, PARTS, found)
        if part is None:
            return None
        require_whole_words(name, shape[0], self.groups.bits, part)
        packing = self.groups.packing(name, shape[1], part)
        return StoredGptq(name, shape, self, packing, found.get(f"{name}.g_idx"), found.get(f"{name}.qzeros"))


@dataclass(frozen=True)
class StoredGptq:
    """A matrix stored as GPTQ stores it.

    Args:
        name: Name without `.qweight`.
        shape: Shape of the matrix.
        method: Quantization according to config.json.
        packing: Packing after reading.
        group_index: Tensor with the group of each input; None if there is none.
        zeros: Tensor of the zeros; None if it is missing.
    """

    name: str
    shape: Shape
    method: Gptq
    packing: Packing
    group_index: TensorInfo | None
    zeros: TensorInfo | None

    def tensors(self) -> dict[str, Expected]:
        """Return packed (in * bits / 32, out), zeros (G, out * bits / 32) and scales (G, out)."""
        (out, width), bits = self.shape, self.packing.bits
        count = self.method.groups.count(width)
        tensors = {
            f"{self.name}.qweight": Expected((width * bits // WORD_BITS, out), SIGNED_WORDS),
            f"{self.name}.qzeros": Expected((count, out * bits // WORD_BITS), SIGNED_WORDS),
            f"{self.name}.scales": Expected((count, out)),
        }
        return (
            {**tensors, f"{self.name}.g_idx": Expected((width,), ("I32",))} if self.group_index else tensors
        )

    def nbytes(self, dtype: str) -> int:
        """Return the bytes in memory, if computed with in this dtype."""
        return self.packing.nbytes(self.shape, DTYPE_BYTES[dtype])

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """Return the bytes of the stored words, which are transposed, or later of the zeros."""
        words, zeros = found[f"{self.name}.qweight"], found[f"{self.name}.qzeros"]
        return max(words.nbytes, unpacking_bytes(zeros, self.packing.bits))

    def read(self, files: TensorFiles) -> QuantizedMatrix:
        """Read and compute the matrix.

        Raises:
            CheckpointError: A group is not of neighboring inputs, or the zeros contradict config.json.
        """
        self._check_groups(files)
        packed = in_order(files.stored(f"{self.name}.qweight").view(mx.uint32).T)
        zeros = self._zeros(files)
        scales = files.stored(f"{self.name}.scales")
        return self.method.groups.matrix(packed, scales.T, zeros, self.packing, files.dtype)

    def _zeros(self, files: TensorFiles) -> mx.array | int:
        """Return the zero of each output and group, (out, G), or a single one for all."""
        bits = self.packing.bits
        words = files.stored(f"{self.name}.qzeros").view(mx.uint32)
        # A word in which every packed number is 1.
        ones = sum(1 << place for place in range(0, WORD_BITS, bits))
        if not self.method.is_symmetric:
            # The writer subtracted 1 from each number as if the word were a single number, so a zero of 0
            # borrows from the next one.
            return unpacked(words + ones if self.method.has_zeros_less_one else words, bits).T
        middle = 1 << (bits - 1)
        if not any((words == zero * ones).all().item() for zero in (middle, middle - 1)):
            assert self.zeros is not None
            raise CheckpointError(
                f"{self.zeros.place} has zero points other than {middle}, and "
                "config.json says that quantization is symmetric (sym)",
                "the checkpoint contradicts itself: get another version of the model",
            )
        return middle

    def _check_groups(self, files: TensorFiles) -> None:
        if self.group_index is None:
            return
        width = self.shape[1]
        neighbors = mx.arange(width) // self.method.groups.size_in(width)
        if (files.stored(f"{self.name}.g_idx") != neighbors).any().item():
            raise CheckpointError(
                f"{self.group_index.place} groups inputs by importance (desc_act), "
                "and only groups of neighboring inputs are supported"
            )
