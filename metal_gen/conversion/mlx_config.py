"""Builds the config.json of a converted checkpoint, with every field that mlx-lm needs.

Source: `ModelArgs` of the models of mlx-lm 0.32.2, and `save_config` in its `utils.py`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from metal_gen.conversion.weight_converter import NESTED
from metal_gen.models.config.language_part import VISION_FIELDS, language_fields
from metal_gen.models.config.linear_attention import DEFAULT_INTERVAL
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.config.rope import RopeConfig
from metal_gen.models.matrices.quantized import Packing

# The text-only models of vision-language models.
TEXT_MODELS = {
    "qwen2_vl": ("qwen2", "Qwen2ForCausalLM"),
    "qwen2_5_vl": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3_vl": ("qwen3", "Qwen3ForCausalLM"),
    "qwen3_vl_moe": ("qwen3_moe", "Qwen3MoeForCausalLM"),
}
# Fields that are replaced or dropped, in all spellings.
REPLACED = VISION_FIELDS | {
    *("_name_or_path", "dtype", "num_local_experts", "original_max_position_embeddings"),
    *("quantization", "quantization_config", "rope_parameters", "rope_scaling", "rope_theta"),
}
SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("vocab_size", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings"),
)
# Fields repeated outside `text_config` in nested configs.
OUTSIDE = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "torch_dtype")


def mlx_config(
    original: Mapping[str, Any], config: ModelConfig, dtype: str, packings: Mapping[str, Packing]
) -> dict[str, Any]:
    """Return the config.json of converted weights.

    Args:
        original: Contents of the original config.json.
        config: The config parsed from it.
        dtype: Dtype of the weights that are not quantized.
        packings: Packing of each quantized matrix, by mlx-lm's name.
    """
    merged = language_fields(original)
    fields = {name: value for name, value in merged.items() if name not in REPLACED}
    fields |= {name: getattr(config, name) for name in SIZES}
    fields |= {
        "model_type": text_model_type(config),
        "torch_dtype": dtype,
        "layer_types": list(config.layer_types),
        # mlx-lm requires this field even if every layer has experts.
        "intermediate_size": config.intermediate_size
        or fields.get("intermediate_size")
        or config.hidden_size,
    }
    if config.model_type in TEXT_MODELS:
        fields["architectures"] = [TEXT_MODELS[config.model_type][1]]
    if config.experts is not None:
        fields |= {**asdict(config.experts), "mlp_only_layers": sorted(config.experts.mlp_only_layers)}
    if config.linear is not None:
        fields["full_attention_interval"] = interval(config)
        fields["partial_rotary_factor"] = config.rope.partial_rotary_factor
    if config.model_type in NESTED:
        old = merged.get("rope_parameters") or {}
        fields["rope_parameters"] = {
            **old,
            **_rope_fields(config.rope),
            "rope_theta": config.rope.rope_theta,
            "partial_rotary_factor": config.rope.partial_rotary_factor,
        }
        fields = _nested(fields)
    else:
        fields["rope_theta"] = config.rope.rope_theta
        if config.rope.rope_type != "default":
            fields["rope_scaling"] = _rope_fields(config.rope)
    if packings:
        fields["quantization"] = fields["quantization_config"] = _quantization(packings)
    return dict(sorted(fields.items()))


def text_model_type(config: ModelConfig) -> str:
    """Return the model type without the vision part."""
    return TEXT_MODELS.get(config.model_type, (config.model_type,))[0]


def interval(config: ModelConfig) -> int:
    """Return the interval of full-attention layers, as far as one number can express them."""
    kinds = config.layer_types
    return kinds.index("full_attention") + 1 if "linear_attention" in kinds else DEFAULT_INTERVAL


def _nested(fields: dict[str, Any]) -> dict[str, Any]:
    inside = {name: value for name, value in fields.items() if name != "architectures"}
    outside = {name: fields[name] for name in (*OUTSIDE, "architectures", "model_type") if name in fields}
    return {**outside, "text_config": {**inside, "model_type": f"{fields['model_type']}_text"}}


def _rope_fields(rope: RopeConfig) -> dict[str, Any]:
    """Return the RoPE scaling fields, in the older and the newer spelling."""
    fields: dict[str, Any] = {"type": rope.rope_type, "rope_type": rope.rope_type}
    if rope.rope_type != "default":
        fields["factor"] = rope.factor
    if rope.rope_type == "yarn":
        names = ("original_max_position_embeddings", "beta_fast", "beta_slow", "truncate")
        fields |= {name: getattr(rope, name) for name in names}
        given = {name: getattr(rope, name) for name in ("attention_factor", "mscale", "mscale_all_dim")}
        fields |= {name: value for name, value in given.items() if value is not None}
    return fields


def _quantization(packings: Mapping[str, Packing]) -> dict[str, Any]:
    """Return the most common packing, and by name the matrices with another one."""
    ((usual, _),) = Counter(packings.values()).most_common(1)
    others = {name: packing.keywords for name, packing in packings.items() if packing != usual}
    return {**usual.keywords, **others}
