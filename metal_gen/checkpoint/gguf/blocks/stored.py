"""A matrix as a GGUF file stores it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from metal_gen.checkpoint.gguf.blocks.forms import FORMS
from metal_gen.checkpoint.gguf.blocks.read import converting_bytes
from metal_gen.checkpoint.packed.stored import Expected
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.device.backend import DTYPE_BYTES
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.matrix import ArrayMatrix, DenseMatrix
from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix


@dataclass(frozen=True)
class StoredBlocks:
    """A matrix in quantized blocks.

    Args:
        name: Name of its tensor.
        shape: Shape of the matrix.
        block_type: Type of its blocks, as ggml spells it.
    """

    name: str
    shape: Shape
    block_type: str

    @property
    def packing(self) -> Packing | None:
        """Packing after reading; None for types that become unquantized numbers."""
        return FORMS[self.block_type].packing

    def tensors(self) -> dict[str, Expected]:
        """Return the only tensor."""
        return {self.name: Expected(self.shape, (self.block_type,))}

    def nbytes(self, dtype: str) -> int:
        """Return the bytes in memory, if computed with in this dtype."""
        if self.packing is None:
            return math.prod(self.shape) * DTYPE_BYTES[dtype]
        return self.packing.nbytes(self.shape, DTYPE_BYTES[dtype])

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """Return the peak memory of converting some rows at a time."""
        return converting_bytes(math.prod(self.shape))

    def read(self, files: TensorFiles) -> ArrayMatrix:
        """Read and compute the matrix."""
        arrays = files.blocks(self.name)
        if self.packing is None:
            return DenseMatrix(*arrays)
        packed, scales, *biases = arrays
        return QuantizedMatrix(packed, scales, biases[0] if biases else None, self.packing, files.dtype)
