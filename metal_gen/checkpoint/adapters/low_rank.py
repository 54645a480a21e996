"""The low-rank update of one matrix, W + scale * U D (LoRA, arXiv 2106.09685), as an adapter stores it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.parameters import Shape


@dataclass(frozen=True)
class Factor:
    """One of the two factors.

    Attributes:
        info: Tensor of the factor.
        is_turned: Whether the tensor's last two axes are swapped.
    """

    info: TensorInfo
    is_turned: bool

    @property
    def key(self) -> str:
        """Name that is unique among the tensors of the model and of all adapters."""
        return f"{self.info.path}: {self.info.name}"

    def stored_shape(self, shape: Shape) -> Shape:
        """Return the shape of the tensor for a factor of this shape."""
        return (*shape[:-2], shape[-1], shape[-2]) if self.is_turned else shape

    def read(self, files: TensorFiles) -> mx.array:
        """Read the factor in float32."""
        numbers = files.stored(self.key).astype(mx.float32)
        return numbers.swapaxes(-1, -2) if self.is_turned else numbers


@dataclass(frozen=True)
class LowRank:
    """Two factors and their scale.

    Attributes:
        down: D, (..., rank, in).
        up: U, (..., out, rank).
        rank: Rank according to adapter_config.json.
        scale: Scale of the product.
    """

    down: Factor
    up: Factor
    rank: int
    scale: float

    @property
    def factors(self) -> tuple[Factor, Factor]:
        """Both factors, D first."""
        return self.down, self.up

    def misfits(self, shape: Shape) -> Iterator[tuple[TensorInfo, Shape]]:
        """Yield the tensors that do not fit a matrix (..., out, in), with the shapes that would."""
        wanted = (*shape[:-2], self.rank, shape[-1]), (*shape[:-1], self.rank)
        for factor, needed in zip(self.factors, wanted, strict=True):
            if factor.info.shape != factor.stored_shape(needed):
                yield factor.info, factor.stored_shape(needed)


def read_together(low_ranks: Sequence[LowRank], files: TensorFiles) -> tuple[mx.array, mx.array]:
    """Read the updates of several adapters as one pair of factors, whose rank is the sum of theirs.

    Returns:
        D, (..., rank, in), and the scaled U, (..., out, rank), in float32.
    """
    downs = [each.down.read(files) for each in low_ranks]
    ups = [each.scale * each.up.read(files) for each in low_ranks]
    return mx.concatenate(downs, axis=-2), mx.concatenate(ups, axis=-1)


def factor_tensors(low_ranks: Sequence[LowRank]) -> Mapping[str, TensorInfo]:
    """Return the tensors of all factors, by their keys."""
    return {factor.key: factor.info for each in low_ranks for factor in each.factors}
