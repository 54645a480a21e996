"""A stored matrix that adapters add to when it is read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.checkpoint.adapters.low_rank import LowRank, read_together
from metal_gen.checkpoint.packed.stored import Expected, Stored
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.device.backend import DTYPE_BYTES
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.adapted import AdaptedMatrix, SingleMatrix
from metal_gen.models.matrices.matrix import DenseMatrix, computed
from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.matrices.quantized import Packing


@dataclass(frozen=True)
class StoredAdapted:
    """An unquantized matrix with merged adapters, or a packed one with its adapters kept separately.

    Args:
        base: The matrix itself.
        low_ranks: Low-rank updates; at least one.
    """

    base: Stored
    low_ranks: tuple[LowRank, ...]

    @property
    def shape(self) -> Shape:
        """Shape of the matrix, (..., out, in)."""
        return self.base.shape

    @property
    def packing(self) -> Packing | None:
        """Packing of the matrix itself."""
        return self.base.packing

    @property
    def rank_beside(self) -> int:
        """Total rank of the factors kept separately; 0 if they are merged."""
        return 0 if self.packing is None else sum(each.rank for each in self.low_ranks)

    def tensors(self) -> dict[str, Expected]:
        """Return the tensors of the matrix itself."""
        return self.base.tensors()

    def nbytes(self, dtype: str) -> int:
        """Return the bytes in memory, including separate factors."""
        *experts, out, width = self.shape
        beside = math.prod(experts) * self.rank_beside * (out + width)
        return self.base.nbytes(dtype) + beside * DTYPE_BYTES[dtype]

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """Return the peak memory of reading: factors and sums are in float32."""
        factors = [factor.info for each in self.low_ranks for factor in each.factors]
        reading = 2 * sum(math.prod(info.shape) for info in factors)
        if self.packing is None:
            reading += math.prod(self.shape) * (1 if dtype == "float32" else 2)
        return max(self.base.reading_bytes(dtype, found), reading * DTYPE_BYTES["float32"])

    def read(self, files: TensorFiles) -> SingleMatrix:
        """Read and compute the matrix with its updates."""
        base = self.base.read(files)
        down, up = read_together(self.low_ranks, files)
        if isinstance(base, DenseMatrix):
            # By itself, because a GPU keeps all that it computes together.
            numbers = computed(mx.addmm(base.numbers.astype(mx.float32), up, down))
            return DenseMatrix(computed(numbers.astype(files.dtype)))
        assert not isinstance(base, AdaptedMatrix)
        down, up = computed(down.astype(files.dtype)), computed(up.astype(files.dtype))
        return AdaptedMatrix(base, DenseMatrix(down), DenseMatrix(up))


def zeros_bytes(parts: Sequence[Stored], dtype: str) -> int:
    """Return the bytes of zeros that joining adds, where U of one part has the columns of the others."""
    ranks = [part.rank_beside if isinstance(part, StoredAdapted) else 0 for part in parts]
    places = [math.prod(part.shape[:-1]) for part in parts]
    whole = sum(ranks) * sum(places)
    own = sum(rank * count for rank, count in zip(ranks, places, strict=True))
    return (whole - own) * DTYPE_BYTES[dtype]
