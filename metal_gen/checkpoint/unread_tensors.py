"""Tensors that checkpoints have though the model does not need them."""

from collections.abc import Collection

from metal_gen.checkpoint.model_tensors import HEAD
from metal_gen.checkpoint.packed.stored import FP8_SCALES
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo

# What any of the forms of a matrix consists of.
MATRIX_PARTS = frozenset(
    """weight scales biases qweight qzeros g_idx weight_packed weight_scale weight_scale_inv weight_shape
    weight_zero_point input_scale""".split()
)
# Of keys, values, queries and probabilities, where attention or its cache is in 8 bits. Here they are not.
CACHE_SCALES = frozenset(
    "k_scale v_scale q_scale prob_scale output_scale prob_output_scale k_zero_point v_zero_point".split()
)
ATTENTION_PARTS = (".self_attn", ".self_attn.attn", *(f".self_attn.{part}_proj" for part in "qkv"))
# Of trainers that reward or rank texts; it is no part of what writes them.
VALUE_HEAD = "v_head."


def is_unread(name: str, expected: Collection[str], *, tied: bool) -> bool:
    """Return whether a tensor may be there without a place in the model.

    Old checkpoints store rotary frequencies, tied ones a copy of the embedding as head or what is left of
    one, those in FP8 have scales of activations and of the cache, which are not quantized here, those of
    AutoGPTQ a bias for every projection, and those of some trainers a second head.

    Args:
        name: Of the tensor.
        expected: The names of those that are read.
        tied: The embedding is also the head.
    """
    module, _, last = name.rpartition(".")
    return (
        name.endswith("rotary_emb.inv_freq")
        or (tied and module == HEAD and last in MATRIX_PARTS)
        or (last == "input_scale" and any(f"{module}.{scale}" in expected for scale in FP8_SCALES))
        or (last in CACHE_SCALES and module.endswith(ATTENTION_PARTS))
        or name.startswith(VALUE_HEAD)
        or is_spare_bias(name, expected)
    )


def is_spare_bias(name: str, expected: Collection[str]) -> bool:
    """Return whether a tensor is the bias of a projection that has none in the model, which must be zero."""
    module, _, last = name.rpartition(".")
    return last == "bias" and name not in expected and f"{module}.qweight" in expected


def require_zeros(info: TensorInfo, name: str, files: TensorFiles) -> None:
    """Read a spare bias.

    Raises:
        CheckpointError: It is not zero.
    """
    if files.numbers(name).any().item():
        raise CheckpointError(f"{info.place} has numbers other than 0, and the model has no bias there")
