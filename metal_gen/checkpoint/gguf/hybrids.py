"""Maps the metadata of models with linear attention to the fields of config.json.

Source: `Qwen3NextModel` in `conversion/qwen.py` and `load_arch_hparams` in `src/models/qwen35.cpp` of
https://github.com/ggml-org/llama.cpp
"""

from collections.abc import Mapping
from typing import Any

from metal_gen.models.config.fields import FieldReader
from metal_gen.models.config.linear_attention import DEFAULT_INTERVAL

SIZES = {
    "ssm.group_count": "linear_num_key_heads",
    "ssm.time_step_rank": "linear_num_value_heads",
    "ssm.state_size": "linear_key_head_dim",
    "ssm.conv_kernel": "linear_conv_kernel_dim",
}
INNER_SIZE, INTERVAL, LINEAR_LAYERS = (
    "ssm.inner_size",
    "full_attention_interval",
    "attention.recurrent_layers",
)
MTP_LAYERS = "nextn_predict_layers"
# Fields that are read here, or that only concern images.
HYBRID_FIELDS = frozenset(
    (*SIZES, INNER_SIZE, INTERVAL, LINEAR_LAYERS, MTP_LAYERS, "rope.dimension_sections")
)


def read_hybrid(fields: FieldReader, architecture: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of config.json for linear attention, and those that it changes.

    Args:
        fields: The metadata.
        architecture: The prefix of its names.
        config: The fields that all models have.

    Raises:
        CheckpointError: A field is missing or wrong, or two contradict each other.
    """
    found: dict[str, Any] = {name: fields.integer(f"{architecture}.{field}") for field, name in SIZES.items()}
    inner, heads = fields.integer(f"{architecture}.{INNER_SIZE}"), found["linear_num_value_heads"]
    if inner % heads:
        raise fields.error(f"{architecture}.{INNER_SIZE} is {inner}, which {heads} heads cannot share evenly")
    found["linear_value_head_dim"] = inner // heads
    count, mtp = config["num_hidden_layers"], fields.integer(f"{architecture}.{MTP_LAYERS}", 0, minimum=0)
    if mtp >= count:
        raise fields.error(
            f"{architecture}.{MTP_LAYERS} is {mtp}, and of {count} layers some must be the model's",
            "the file that holds the other layers is the model",
        )
    kinds = _kinds(fields, architecture, count - mtp)
    if "linear_attention" not in kinds:
        raise fields.error("it has no layer of linear attention, and such models are not supported")
    rotated = fields.integer(f"{architecture}.rope.dimension_count", config["head_dim"])
    return {
        **found,
        "num_hidden_layers": count - mtp,
        "mtp_num_hidden_layers": mtp,
        "layer_types": kinds,
        "partial_rotary_factor": rotated / config["head_dim"],
    }


def _kinds(fields: FieldReader, architecture: str, layers: int) -> list[str]:
    listed = fields.fields.get(f"{architecture}.{LINEAR_LAYERS}")
    if listed is None:
        interval = fields.integer(f"{architecture}.{INTERVAL}", DEFAULT_INTERVAL)
        listed = [(index + 1) % interval != 0 for index in range(layers)]
    elif not isinstance(listed, list) or len(listed) < layers:
        raise fields.error(f"{architecture}.{LINEAR_LAYERS} must list {layers} layers")
    return ["linear_attention" if is_linear else "full_attention" for is_linear in listed[:layers]]
