"""Recognises tensors that checkpoints contain although the model does not need them."""

from collections.abc import Collection

from metal_gen.checkpoint.model_tensors import HEAD
from metal_gen.checkpoint.packed.stored import FP8_SCALES
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo

# Parts of a matrix in any of its forms.
MATRIX_PARTS = frozenset(
    """weight scales biases qweight qzeros g_idx weight_packed weight_scale weight_scale_inv weight_shape
    weight_zero_point input_scale""".split()
)
# Scales of keys, values, queries and probabilities for 8-bit attention or caches, which are not used here.
CACHE_SCALES = frozenset(
    "k_scale v_scale q_scale prob_scale output_scale prob_output_scale k_zero_point v_zero_point".split()
)
ATTENTION_PARTS = (".self_attn", ".self_attn.attn", *(f".self_attn.{part}_proj" for part in "qkv"))
# A head that trainers use to reward or rank texts. It takes no part in generation.
VALUE_HEAD = "v_head."


def is_unread(name: str, expected: Collection[str], *, tied: bool) -> bool:
    """Return whether a tensor without a place in the model is known to be harmless.

    Old checkpoints store rotary frequencies. Tied ones store a copy of the embedding as head, or remains of
    one. FP8 ones have scales of activations and of the cache, which are not quantized here. AutoGPTQ's have
    a bias for every projection, and those of some trainers a second head.

    Args:
        name: Name of the tensor.
        expected: Names of the tensors that are read.
        tied: Whether the embedding is also the head.
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
    """Return whether a tensor is a bias that the model does not have. Such a bias must be zero."""
    module, _, last = name.rpartition(".")
    return last == "bias" and name not in expected and f"{module}.qweight" in expected


def require_zeros(info: TensorInfo, name: str, files: TensorFiles) -> None:
    """Read a spare bias and check that it is zero.

    Raises:
        CheckpointError: It is not zero.
    """
    if files.numbers(name).any().item():
        raise CheckpointError(f"{info.place} has numbers other than 0, and the model has no bias there")
