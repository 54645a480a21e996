"""Reads matrices of 8-bit floating-point numbers (E4M3) with a scale per block, per row or per matrix.

They become unquantized numbers in the dtype of computation. Numbers are multiplied by their scale in float32
and rounded once.

Source: `integrations/finegrained_fp8.py` of Hugging Face transformers; compressed-tensors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.checkpoint.packed.stored import FLOATS, FP8_SCALES, Expected
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.device.backend import DTYPE_BYTES
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.matrix import DenseMatrix, computed
from metal_gen.models.matrices.parameters import Shape

FP8 = ("F8_E4M3",)


@dataclass(frozen=True)
class Fp8:
    """FP8 quantization according to config.json.

    Attributes:
        block: Rows and columns that share a scale; None for one scale per row or matrix.
    """

    block: tuple[int, int] | None

    def form(self, name: str, shape: Shape, found: Mapping[str, TensorInfo]) -> "StoredFp8 | None":
        """Return the form of a matrix, or None if it is not quantized."""
        weight = found.get(f"{name}.weight")
        scales = [scale for scale in FP8_SCALES if f"{name}.{scale}" in found]
        if not scales and (weight is None or weight.dtype in FLOATS):
            return None
        scale = scales[0] if scales else FP8_SCALES[0 if self.block else 1]
        if self.block is not None:
            block = min(self.block[0], shape[0]), min(self.block[1], shape[1])
            grid = -(-shape[0] // block[0]), -(-shape[1] // block[1])
            return StoredFp8(name, shape, block, scale, grid)
        info = found.get(f"{name}.{scale}")
        scale_shape = (shape[0], 1) if info is None else info.shape
        if scale_shape in ((), (1,), (1, 1)):
            return StoredFp8(name, shape, shape, scale, scale_shape)
        by_row: Shape = (shape[0],) if len(scale_shape) == 1 else (shape[0], 1)
        return StoredFp8(name, shape, (1, shape[1]), scale, by_row)


@dataclass(frozen=True)
class StoredFp8:
    """A matrix stored in FP8.

    Args:
        name: Name without `.weight`.
        shape: Shape of the matrix.
        block: Rows and columns that share a scale; blocks at the edges may be smaller.
        scale: Last part of the name of its scales.
        scale_shape: Shape of the scales.
    """

    name: str
    shape: Shape
    block: Shape
    scale: str
    scale_shape: Shape
    packing: None = None

    def tensors(self) -> dict[str, Expected]:
        """Return numbers and scales."""
        return {
            f"{self.name}.weight": Expected(self.shape, FP8),
            f"{self.name}.{self.scale}": Expected(self.scale_shape),
        }

    def nbytes(self, dtype: str) -> int:
        """Return the bytes in memory, if computed with in this dtype."""
        return math.prod(self.shape) * DTYPE_BYTES[dtype]

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """Return the bytes of the stored numbers, of those padded to whole blocks, and of a float32 copy."""
        stays = dtype == "float32" and self._is_whole_blocks
        filled = 0 if self._is_whole_blocks else 1
        return (1 + filled + (0 if stays else DTYPE_BYTES["float32"])) * math.prod(self.shape)

    def read(self, files: TensorFiles) -> DenseMatrix:
        """Read and compute the matrix."""
        (out, width), (rows, columns) = self.shape, self.block
        scales = files.stored(f"{self.name}.{self.scale}").astype(mx.float32)
        by_block = scales.reshape(-(-out // rows), 1, -(-width // columns), 1)
        blocks = (by_block.shape[0], rows, by_block.shape[2], columns)
        # No name holds an array longer than needed, so that each takes the memory of the one before.
        numbers = files.stored(f"{self.name}.weight")
        if not self._is_whole_blocks:
            numbers = mx.pad(numbers, [(0, -out % rows), (0, -width % columns)])
        numbers = mx.from_fp8(numbers, dtype=mx.float32).reshape(blocks) * by_block
        numbers = numbers.reshape(blocks[0] * rows, -1)[:out, :width].astype(files.dtype)
        return DenseMatrix(computed(mx.contiguous(numbers)))

    @property
    def _is_whole_blocks(self) -> bool:
        return not (self.shape[0] % self.block[0] or self.shape[1] % self.block[1])
