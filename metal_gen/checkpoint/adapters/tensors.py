"""The tensors of an adapter: pairs of low-rank factors, and whole tensors that replace the model's."""

from collections.abc import Mapping
from dataclasses import dataclass

from metal_gen.checkpoint.adapters.low_rank import LowRank
from metal_gen.checkpoint.packed.stored import FLOATS
from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.files.safetensors_header import TensorInfo


@dataclass(frozen=True)
class AdapterTensors:
    """The tensors of an adapter, by module and tensor names of its layout.

    Attributes:
        low_ranks: Low-rank updates by the name of the matrix.
        whole: Whole tensors by the name of the tensor they replace.
    """

    low_ranks: Mapping[str, LowRank]
    whole: Mapping[str, TensorInfo]


def require_floats(tensors: Mapping[str, TensorInfo]) -> None:
    """Check that every tensor can be added to a weight.

    Raises:
        CheckpointError: A tensor has another dtype.
    """
    for info in tensors.values():
        if info.dtype not in FLOATS:
            raise CheckpointError(
                f"{excerpt(info.name)} in {info.path} is stored as {excerpt(info.dtype)}, "
                f"and only {', '.join(FLOATS)} are supported"
            )


def pair_of(found: Mapping[str, TensorInfo], names: tuple[str, str]) -> tuple[TensorInfo, TensorInfo]:
    """Return both factors of a matrix.

    Args:
        found: One or two factors, by their kind.
        names: The two kinds.

    Raises:
        CheckpointError: A factor is missing.
    """
    for name in names:
        if name not in found:
            other = next(iter(found.values()))
            raise CheckpointError(
                f"{other.path} has {excerpt(other.name)}, but its {name} is missing",
                "download or copy the adapter again",
            )
    return found[names[0]], found[names[1]]
