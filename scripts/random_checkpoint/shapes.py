"""The config.json of published models, by name: sizes, rope and the ids of tokens that end a text.

Of Qwen3.5, which also reads images, only the fields of the language part are here.
"""

from typing import Any

from metal_gen.errors import UsageError

Config = dict[str, Any]

QWEN3: Config = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151_643,
    "eos_token_id": 151_645,
    "head_dim": 128,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 40_960,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1_000_000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151_936,
}
QWEN3_5: Config = {
    "model_type": "qwen3_5_text",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_output_gate": True,
    "eos_token_id": 248_044,
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_value_head_dim": 128,
    "mamba_ssm_dtype": "float32",
    "max_position_embeddings": 262_144,
    "mlp_only_layers": [],
    "mtp_num_hidden_layers": 1,
    "mtp_use_dedicated_embeddings": False,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "mrope_interleaved": True,
        "mrope_section": [11, 11, 10],
        "partial_rotary_factor": 0.25,
        "rope_theta": 10_000_000,
        "rope_type": "default",
    },
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": 248_320,
}
SHAPES: dict[str, Config] = {
    "qwen3-0.6b": {
        **{**QWEN3, "hidden_size": 1024, "intermediate_size": 3072},
        **{"num_hidden_layers": 28, "num_attention_heads": 16},
    },
    "qwen3-4b": {
        **{**QWEN3, "hidden_size": 2560, "intermediate_size": 9728},
        **{"num_hidden_layers": 36, "num_attention_heads": 32},
    },
    "qwen3-8b": {
        **{**QWEN3, "hidden_size": 4096, "intermediate_size": 12_288},
        **{"num_hidden_layers": 36, "num_attention_heads": 32, "tie_word_embeddings": False},
    },
    "qwen3-30b-a3b": {
        **{**QWEN3, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]},
        **{"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48},
        **{"num_attention_heads": 32, "num_key_value_heads": 4, "tie_word_embeddings": False},
        **{"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
        **{"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True},
        **{"output_router_logits": False, "router_aux_loss_coef": 0.001},
    },
    "qwen3.5-0.8b": {
        **{**QWEN3_5, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 24},
        **{"num_attention_heads": 8, "num_key_value_heads": 2, "linear_num_value_heads": 16},
    },
    "qwen3.5-4b": {
        **{**QWEN3_5, "hidden_size": 2560, "intermediate_size": 9216, "num_hidden_layers": 32},
        **{"num_attention_heads": 16, "num_key_value_heads": 4, "linear_num_value_heads": 32},
    },
    "qwen3.5-35b-a3b": {
        **{**QWEN3_5, "model_type": "qwen3_5_moe_text", "hidden_size": 2048, "num_hidden_layers": 40},
        **{"num_attention_heads": 16, "num_key_value_heads": 2, "linear_num_value_heads": 32},
        **{"num_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 512},
        **{"shared_expert_intermediate_size": 512, "router_aux_loss_coef": 0.001},
        "tie_word_embeddings": False,
    },
}
# The first of them ends a text, the last a turn.
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END_OF_TEXT = {"qwen3": 151_643, "qwen3.5": 248_044}
OUTER_ARCHITECTURES = {
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
}


def published_config(
    name: str, *, layers: int | None = None, dtype: str = "bfloat16", **changes: Any
) -> Config:
    """Return the contents of a config.json.

    Args:
        name: Name of a shape in `SHAPES`.
        layers: Number of layers; None for all of them.
        dtype: Dtype of the weights.
        changes: Other fields of the language model that are not as published.

    Raises:
        UsageError: There are too few layers, or more than were published.
    """
    text = {**SHAPES[name], **changes}
    interval = text.get("full_attention_interval", 1)
    if layers is not None and not interval <= layers <= text["num_hidden_layers"]:
        raise UsageError(
            f"{name} cannot have {layers} layers: {interval} to {text['num_hidden_layers']} are possible"
        )
    count = text["num_hidden_layers"] = layers or text["num_hidden_layers"]
    if not is_hybrid(text):
        return {**text, "max_window_layers": count, "torch_dtype": dtype}
    text["layer_types"] = [
        "linear_attention" if (index + 1) % interval else "full_attention" for index in range(count)
    ]
    text["dtype"] = dtype
    model_type = text["model_type"].removesuffix("_text")
    return {
        "architectures": [OUTER_ARCHITECTURES[model_type]],
        "model_type": model_type,
        "text_config": text,
        "tie_word_embeddings": text["tie_word_embeddings"],
    }


def is_hybrid(config: Config) -> bool:
    """Return whether a model has linear attention, and layers for multi-token prediction."""
    return "linear_num_key_heads" in config.get("text_config", config)


def end_of_text(config: Config) -> int:
    """Return the id of the first special token; those below it are ordinary."""
    text = config.get("text_config", config)
    published = END_OF_TEXT["qwen3.5" if is_hybrid(config) else "qwen3"]
    return int(min(published, text["vocab_size"] - len(SPECIAL_TOKENS)))
