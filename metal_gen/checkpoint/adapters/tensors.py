"""The tensors of an adapter, sorted: pairs of factors, and what stands in place of the model's own."""

from collections.abc import Mapping
from dataclasses import dataclass

from metal_gen.checkpoint.adapters.low_rank import LowRank
from metal_gen.checkpoint.packed.stored import FLOATS
from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.files.safetensors_header import TensorInfo


@dataclass(frozen=True)
class AdapterTensors:
    """What an adapter holds, by the names of modules and tensors as its layout has them.

    Attributes:
        low_ranks: By the name of the matrix.
        whole: By the name of the tensor whose place it takes.
    """

    low_ranks: Mapping[str, LowRank]
    whole: Mapping[str, TensorInfo]


def require_floats(tensors: Mapping[str, TensorInfo]) -> None:
    """See that all can be added to a weight.

    Raises:
        CheckpointError: One is of another dtype.
    """
    for info in tensors.values():
        if info.dtype not in FLOATS:
            raise CheckpointError(
                f"{excerpt(info.name)} in {info.path} is stored as {excerpt(info.dtype)}, "
                f"and only {', '.join(FLOATS)} are read"
            )


def pair_of(found: Mapping[str, TensorInfo], names: tuple[str, str]) -> tuple[TensorInfo, TensorInfo]:
    """Both factors of a matrix.

    Args:
        found: At least one, by what it is called.
        names: What the two are called.

    Raises:
        CheckpointError: One is missing.
    """
    for name in names:
        if name not in found:
            other = next(iter(found.values()))
            raise CheckpointError(
                f"{other.path} has {excerpt(other.name)} and no {name} for it",
                "download or copy the adapter again",
            )
    return found[names[0]], found[names[1]]
