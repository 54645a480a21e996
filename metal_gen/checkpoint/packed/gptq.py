"""Matrices as GPTQ is published: packed along the inputs, as MLX does, but with inputs as rows.

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
from metal_gen.models.matrices.matrix import computed
from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.matrices.quantized import WORD_BITS, Packing, QuantizedMatrix

GPTQ_BITS = (2, 4, 8)
PARTS = ("qweight", "qzeros", "scales", "g_idx")


@dataclass(frozen=True)
class Gptq:
    """What config.json says of such matrices.

    Attributes:
        groups: That share a scale and a zero.
        has_zeros_less_one: As the format `gptq` has them; `gptq_v2` stores zeros as they are.
        is_symmetric: All zeros are the middle of the range. Checkpoints that say so are published with zeros
            of either format, whichever they name.
    """

    groups: Groups
    has_zeros_less_one: bool
    is_symmetric: bool = False

    def form(self, name: str, shape: Shape, found: Mapping[str, TensorInfo]) -> "StoredGptq | None":
        """The form of a matrix; None if it is not quantized.

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
    """A matrix in this form.

    Args:
        name: Without `.qweight`.
        shape: Of the matrix.
        method: What config.json says.
        packing: Once it is read.
        group_index: The tensor that says which group each input belongs to, where there is one.
        zeros: The tensor of the zeros; None where it is missing.
    """

    name: str
    shape: Shape
    method: Gptq
    packing: Packing
    group_index: TensorInfo | None
    zeros: TensorInfo | None

    def tensors(self) -> dict[str, Expected]:
        """Packed numbers (in * bits / 32, out), packed zeros (G, out * bits / 32), scales (G, out)."""
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
        """Bytes in memory, computed with in this dtype."""
        return self.packing.nbytes(self.shape, DTYPE_BYTES[dtype])

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """The words as stored, which are turned, or later the zeros."""
        words, zeros = found[f"{self.name}.qweight"], found[f"{self.name}.qzeros"]
        return max(words.nbytes, unpacking_bytes(zeros, self.packing.bits))

    def read(self, files: TensorFiles) -> QuantizedMatrix:
        """Read it, computed.

        Raises:
            CheckpointError: Its groups are not of neighbouring inputs, or its zeros contradict config.json.
        """
        self._check_groups(files)
        packed = computed(mx.contiguous(files.stored(f"{self.name}.qweight").view(mx.uint32).T))
        zeros = self._zeros(files)
        scales = files.stored(f"{self.name}.scales")
        return self.method.groups.matrix(packed, scales.T, zeros, self.packing, files.dtype)

    def _zeros(self, files: TensorFiles) -> mx.array | int:
        """Of each output and group, (out, G), or the one of all."""
        bits = self.packing.bits
        words = files.stored(f"{self.name}.qzeros").view(mx.uint32)
        # A word whose numbers are all 1.
        ones = sum(1 << place for place in range(0, WORD_BITS, bits))
        if not self.method.is_symmetric:
            # 1 was taken from each number of a word as if the word were one number, so that a zero of 0
            # borrows from the next.
            return unpacked(words + ones if self.method.has_zeros_less_one else words, bits).T
        middle = 1 << (bits - 1)
        if not any((words == zero * ones).all().item() for zero in (middle, middle - 1)):
            assert self.zeros is not None
            raise CheckpointError(
                f"{self.zeros.place} has zero points other than {middle}, and "
                "config.json says that quantization is symmetric (sym)",
                "the checkpoint contradicts itself: get the model in another one",
            )
        return middle

    def _check_groups(self, files: TensorFiles) -> None:
        if self.group_index is None:
            return
        width = self.shape[1]
        neighbours = mx.arange(width) // self.method.groups.size_in(width)
        if (files.stored(f"{self.name}.g_idx") != neighbours).any().item():
            raise CheckpointError(
                f"{self.group_index.place} puts inputs into groups by their "
                "importance (desc_act), and only groups of neighbouring inputs are read"
            )
