"""Tensors that checkpoints have though the model does not need them."""

from collections.abc import Collection

from metal_gen.checkpoint.packed.stored import FP8_SCALES
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo


def is_unread(name: str, expected: Collection[str], *, tied: bool) -> bool:
    """Whether a tensor may be there without a place in the model.

    Old checkpoints store rotary frequencies, tied ones may repeat the embedding as head, those in FP8 have
    scales of activations, which are not quantized here, and those of AutoGPTQ a bias for every projection.

    Args:
        name: Of the tensor.
        expected: The names of those that are read.
        tied: The embedding is also the head.
    """
    module, _, last = name.rpartition(".")
    return (
        name.endswith("rotary_emb.inv_freq")
        or (tied and name == "lm_head.weight")
        or (last == "input_scale" and any(f"{module}.{scale}" in expected for scale in FP8_SCALES))
        or is_spare_bias(name, expected)
    )


def is_spare_bias(name: str, expected: Collection[str]) -> bool:
    """Whether a tensor is the bias of a projection that has none in the model, which must be zero."""
    module, _, last = name.rpartition(".")
    return last == "bias" and name not in expected and f"{module}.qweight" in expected


def require_zeros(info: TensorInfo, name: str, files: TensorFiles) -> None:
    """Read a spare bias.

    Raises:
        CheckpointError: It is not zero.
    """
    if files.numbers(name).any().item():
        raise CheckpointError(
            f"{info.name} in {info.path.name} has numbers other than 0, and the model has no bias there"
        )
