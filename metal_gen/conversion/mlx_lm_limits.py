"""Features of checkpoints that mlx-lm does not support: it refuses them or computes something else.

Source: the models of mlx-lm 0.32.2.
"""

from metal_gen.conversion.mlx_config import interval, text_model_type
from metal_gen.models.config.model_config import ModelConfig


def limits_of_mlx_lm(config: ModelConfig) -> list[str]:
    """Return the features of a model that mlx-lm lacks; empty for nearly every published model.

    Args:
        config: Config of the checkpoint to convert.
    """
    return [*_attention_limits(config), *_rope_limits(config), *_layer_limits(config)]


def _attention_limits(config: ModelConfig) -> list[str]:
    model_type = text_model_type(config)
    limits = []
    if "sliding_attention" in config.layer_types:
        limits.append("sliding windows")
    if model_type in ("qwen3", "qwen3_moe") and config.attention_bias:
        limits.append("attention_bias")
    if model_type == "qwen2_moe" and not config.qkv_bias:
        limits.append("qkv_bias = false")
    if model_type.startswith("qwen2") and config.head_dim * config.num_attention_heads != config.hidden_size:
        limits.append("heads that do not add up to hidden_size")
    return limits


def _rope_limits(config: ModelConfig) -> list[str]:
    rope = config.rope
    if rope.rope_type != "default" and text_model_type(config) in ("qwen2_moe", "qwen3_moe"):
        return [f"rope_type {rope.rope_type}"]
    if rope.rope_type == "yarn" and (rope.attention_factor is not None or not rope.truncate):
        return ["attention_factor or truncate of rope_parameters"]
    return []


def _layer_limits(config: ModelConfig) -> list[str]:
    limits = []
    model_type, experts = text_model_type(config), config.experts
    if experts is not None and model_type in ("qwen2_moe", "qwen3_5_moe"):
        if not all(map(experts.are_in, range(config.num_hidden_layers))):
            limits.append("a mix of layers with and without experts")
        if model_type == "qwen2_moe" and experts.norm_topk_prob:
            limits.append("norm_topk_prob")
    if model_type == "qwen2_moe" and config.tie_word_embeddings:
        limits.append("tie_word_embeddings")
    if config.linear is not None:
        numbers = range(1, config.num_hidden_layers + 1)
        is_full = [number % interval(config) == 0 for number in numbers]
        if is_full != [kind == "full_attention" for kind in config.layer_types]:
            limits.append("full attention at unequal intervals")
    return limits
