"""Reads adapters as mlx-lm saves them.

Source: `mlx_lm/tuner/utils.py` and `mlx_lm/tuner/lora.py` of mlx-lm 0.32.2.
"""

from collections.abc import Mapping

from metal_gen.checkpoint.adapters.low_rank import Factor, LowRank
from metal_gen.checkpoint.adapters.tensors import AdapterTensors, pair_of, require_floats
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.config.fields import FieldReader, quoted

WEIGHTS_FILE = "adapters.safetensors"
# mlx-lm has no separate head if the head is the embedding.
MOVES_TIED_HEAD = True
FACTORS = ("lora_a", "lora_b")
FACTOR_ENDINGS = tuple(f".{factor}" for factor in FACTORS)
FUSE_HINT = "fuse it first, with mlx_lm.fuse"
EXPERT_AXES = 3


def require_supported(fields: FieldReader) -> None:
    """Check that adapter_config.json asks only for supported features.

    Raises:
        CheckpointError: It asks for something else, or is of neither layout.
    """
    if not fields.has("fine_tune_type") and not fields.has("lora_parameters"):
        raise fields.error(
            "it has neither peft_type nor fine_tune_type nor lora_parameters",
            "only adapters saved by PEFT or mlx-lm are supported",
        )
    kind = fields.fields.get("fine_tune_type") or "lora"
    if kind not in ("lora", "full"):
        raise fields.error(
            f"fine_tune_type is {quoted(kind)}, and only lora and full are supported", FUSE_HINT
        )


def sort_tensors(tensors: Mapping[str, TensorInfo], fields: FieldReader) -> AdapterTensors:
    """Separate low-rank factors from whole tensors, which a full fine-tune has.

    Args:
        tensors: Tensors by their names in the file.
        fields: Fields of adapter_config.json.

    Raises:
        CheckpointError: A factor has no partner, or a field is wrong.
    """
    require_floats(tensors)
    modules = dict.fromkeys(name.rpartition(".")[0] for name in tensors if name.endswith(FACTOR_ENDINGS))
    whole = {name: info for name, info in tensors.items() if not name.endswith(FACTOR_ENDINGS)}
    if not modules:
        return AdapterTensors({}, whole)
    given = fields.fields.get("lora_parameters")
    if not isinstance(given, Mapping):
        raise fields.error("lora_parameters must be an object")
    parameters = FieldReader(given, f"lora_parameters of {fields.source}")
    rank, scale = parameters.integer("rank"), parameters.number("scale")
    return AdapterTensors({name: _low_rank(name, tensors, rank, scale) for name in modules}, whole)


def _low_rank(name: str, tensors: Mapping[str, TensorInfo], rank: int, scale: float) -> LowRank:
    """Pair two factors.

    A and B are (in, r) and (r, out); for an embedding (V, r) and (r, hidden); for experts (E, r, in) and
    (E, out, r).
    """
    found = {each: tensors[f"{name}.{each}"] for each in FACTORS if f"{name}.{each}" in tensors}
    first, second = pair_of(found, FACTORS)
    if name.endswith("embed_tokens"):
        return LowRank(Factor(second, False), Factor(first, False), rank, scale)
    is_turned = len(first.shape) != EXPERT_AXES
    return LowRank(Factor(first, is_turned), Factor(second, is_turned), rank, scale)
