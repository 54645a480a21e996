"""Writes tiny checkpoints with weights from a fixed random stream, for tests and golden files.

The stream is numpy's legacy generator, which never changes, so that the golden files need to
hold the reference's answers only.
"""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

VOCAB = 64
PROMPT = [3, 17, 60, 8, 41, 22]
GREEDY_TOKENS = 64
ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "qwen3_next": "Qwen3NextForCausalLM",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
    "qwen3_5_text": "Qwen3_5ForCausalLM",
    "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM",
}
# From the model cards of Qwen2.5 and Qwen3.
DOCUMENTED_YARN: dict[str, Any] = {
    "head_dim": 128,
    "rope_theta": 1e6,
    "max_position_embeddings": 40960,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
}
LINEAR_ATTENTION = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
    "linear_conv_kernel_dim": 4,
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


def tiny_config(arch: str = "qwen3", **changes: Any) -> dict[str, Any]:
    """Return the config.json of a model with two layers."""
    config = {
        "model_type": arch,
        "architectures": [ARCHITECTURES[arch]],
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": VOCAB,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
    }
    if arch.endswith(("_moe", "_moe_text")) or arch == "qwen3_next":
        config.update(EXPERTS)
    if arch in ("qwen2_moe", "qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text"):
        config["shared_expert_intermediate_size"] = 40
    if arch.startswith(("qwen3_next", "qwen3_5")):
        config.update(LINEAR_ATTENTION)
    config.update(changes)
    return config


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a checkpoint with this config."""
    if "vision_config" in config:
        return _vision_language_shapes(config)
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        is_linear = "linear_num_key_heads" in config and (layer + 1) % 4
        shapes.update(
            _linear_attention_shapes(config, f"{prefix}.linear_attn")
            if is_linear
            else _attention_shapes(config, f"{prefix}.self_attn")
        )
        shapes.update(_mlp_shapes(config, f"{prefix}.mlp", layer))
        shapes[f"{prefix}.input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (hidden,)
    return shapes


def _attention_shapes(config: dict[str, Any], prefix: str) -> dict[str, tuple[int, ...]]:
    hidden, heads, kv_heads = (
        config[name] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    head_dim = config.get("head_dim") or hidden // heads
    qwen3 = config["model_type"].startswith("qwen3")
    bias = config.get("attention_bias", False) if qwen3 else config.get("qkv_bias", True)
    with_gates = 2 if "linear_num_key_heads" in config else 1
    shapes: dict[str, tuple[int, ...]] = {}
    for name, count in (("q", with_gates * heads), ("k", kv_heads), ("v", kv_heads)):
        shapes[f"{prefix}.{name}_proj.weight"] = (count * head_dim, hidden)
        if bias:
            shapes[f"{prefix}.{name}_proj.bias"] = (count * head_dim,)
    shapes[f"{prefix}.o_proj.weight"] = (hidden, heads * head_dim)
    if bias and qwen3:
        shapes[f"{prefix}.o_proj.bias"] = (hidden,)
    if qwen3:
        shapes[f"{prefix}.q_norm.weight"] = (head_dim,)
        shapes[f"{prefix}.k_norm.weight"] = (head_dim,)
    return shapes


def _linear_attention_shapes(config: dict[str, Any], prefix: str) -> dict[str, tuple[int, ...]]:
    hidden, heads = config["hidden_size"], config["linear_num_value_heads"]
    size = config["linear_value_head_dim"]
    keys, values = config["linear_num_key_heads"] * config["linear_key_head_dim"], heads * size
    inputs = {"qkv": 2 * keys + values, "z": values, "b": heads, "a": heads}
    if config["model_type"] == "qwen3_next":
        inputs = {"qkvz": 2 * keys + 2 * values, "ba": 2 * heads}
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}.in_proj_{name}.weight": (rows, hidden) for name, rows in inputs.items()
    }
    shapes[f"{prefix}.conv1d.weight"] = (2 * keys + values, 1, config["linear_conv_kernel_dim"])
    shapes[f"{prefix}.A_log"] = shapes[f"{prefix}.dt_bias"] = (heads,)
    shapes[f"{prefix}.norm.weight"] = (size,)
    shapes[f"{prefix}.out_proj.weight"] = (hidden, values)
    return shapes


def _vision_language_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Rename tensors as published: Qwen2's as two models side by side, Qwen3's as one model with both."""
    text = {"model_type": config["model_type"], **config.get("text_config", config)}
    text = {name: value for name, value in text.items() if name != "vision_config"}
    text["tie_word_embeddings"] = config["tie_word_embeddings"]
    outer, language = ("model.", "model.language_model.") if "text_config" in config else ("", "model.")
    shapes: dict[str, tuple[int, ...]] = {f"{outer}visual.blocks.9.mlp.weight": (64, 48)}
    for name, shape in tensor_shapes(text).items():
        shapes[language + name.removeprefix("model.") if name.startswith("model.") else name] = shape
    return shapes


def _mlp_shapes(config: dict[str, Any], prefix: str, layer: int) -> dict[str, tuple[int, ...]]:
    hidden = config["hidden_size"]

    def gated(prefix: str, size: int) -> dict[str, tuple[int, ...]]:
        inwards = {f"{prefix}.{name}_proj.weight": (size, hidden) for name in ("gate", "up")}
        return {**inwards, f"{prefix}.down_proj.weight": (hidden, size)}

    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers", ())
    count = config.get("num_experts", config.get("num_local_experts", 0))
    if not count or layer in dense or (layer + 1) % step:
        return gated(prefix, config["intermediate_size"])
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}.gate.weight": (count, hidden)}
    if config["model_type"].startswith("qwen3_vl_moe"):
        size = config["moe_intermediate_size"]
        shapes[f"{prefix}.experts.gate_up_proj"] = (count, hidden, 2 * size)
        shapes[f"{prefix}.experts.down_proj"] = (count, size, hidden)
        return shapes
    for index in range(count):
        shapes.update(gated(f"{prefix}.experts.{index}", config["moe_intermediate_size"]))
    if shared := config.get("shared_expert_intermediate_size"):
        shapes[f"{prefix}.shared_expert_gate.weight"] = (1, hidden)
        shapes.update(gated(f"{prefix}.shared_expert", shared))
    return shapes


def tiny_weights(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Return weights whose logits differ enough that greedy decoding has no near ties."""
    stream = np.random.RandomState(seed)
    has_linear = "linear_num_key_heads" in config.get("text_config", config)
    weights = {}
    for name, shape in tensor_shapes(config).items():
        values = stream.standard_normal(shape)
        if name.endswith("norm.weight"):
            is_less_one = has_linear and not name.endswith("linear_attn.norm.weight")
            values = 0.1 * values if is_less_one else 1 + 0.1 * values
        elif name.endswith("bias"):
            values = 0.5 * values
        elif "_proj" in name or name.endswith("gate.weight"):
            values = 1.5 * values / np.sqrt(shape[1])
        weights[name] = values.astype(np.float32)
    return weights


def write_checkpoint(
    folder: Path, config: dict[str, Any], weights: dict[str, np.ndarray] | None = None
) -> Path:
    """Write config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    weights = tiny_weights(config) if weights is None else weights
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def golden_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the configurations whose logits are compared with the reference."""
    matrix = product(
        ("qwen2", "qwen3"), (True, False), (1, 2, 7), (32, 64, 128), (1e4, 1e6), (False, True), (False, True)
    )
    for arch, tied, ratio, head_dim, theta, yarn, bias in matrix:
        if arch == "qwen2" and bias:
            continue
        changes: dict[str, Any] = {
            "tie_word_embeddings": tied,
            "num_attention_heads": 2 if ratio == 1 else 2 * ratio,
            "num_key_value_heads": 2,
            "head_dim": head_dim,
            "rope_theta": theta,
        }
        name = f"{arch}-{'tied' if tied else 'untied'}-gqa{ratio}-d{head_dim}-theta{theta:.0e}"
        if yarn:
            changes["rope_scaling"] = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
            name += "-yarn"
        if bias:
            changes["attention_bias"] = True
            name += "-bias"
        yield name, tiny_config(arch, **changes)
    yield from _special_configs()


def _special_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    for arch in ("qwen2", "qwen3"):
        modern = tiny_config(
            arch, rope_parameters={"rope_type": "default", "rope_theta": 5e5}, dtype="float32"
        )
        del modern["rope_theta"]
        yield f"{arch}-rope-parameters", modern
        yield f"{arch}-linear", tiny_config(arch, rope_scaling={"rope_type": "linear", "factor": 3.0})
        dynamic = {"rope_type": "dynamic", "factor": 2.0}
        yield f"{arch}-dynamic", tiny_config(arch, rope_scaling=dynamic, max_position_embeddings=16)
        yarn = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 8.0, "original_max_position_embeddings": 16}
        tuned = {"attention_factor": 1.3, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False}
        yield f"{arch}-yarn-tuned", tiny_config(arch, rope_parameters={**yarn, **tuned})
        window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
        yield f"{arch}-sliding", tiny_config(arch, **window)
        layer_types = ["sliding_attention", "full_attention"]
        yield f"{arch}-layer-types", tiny_config(arch, **window, layer_types=layer_types)
        yield f"{arch}-yarn-documented", tiny_config(arch, **DOCUMENTED_YARN)
    implied = tiny_config("qwen2", hidden_size=64)
    del implied["head_dim"]
    yield "qwen2-implied-head-dim", implied
    yield from _expert_configs()


def _expert_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2, "num_hidden_layers": 3}
    for arch in ("qwen2_moe", "qwen3_moe"):
        yield f"{arch}-untied", tiny_config(arch)
        yield f"{arch}-tied", tiny_config(arch, tie_word_embeddings=True, norm_topk_prob=True)
        yield f"{arch}-one-dense", tiny_config(arch, norm_topk_prob=True, mlp_only_layers=[0])
        yield f"{arch}-every-second", tiny_config(arch, decoder_sparse_step=2)
        yield f"{arch}-sliding", tiny_config(arch, **window)
        most = {"num_experts": 16, "num_experts_per_tok": 16}
        yield f"{arch}-all-chosen", tiny_config(arch, **most)
        yield f"{arch}-yarn", tiny_config(arch, **DOCUMENTED_YARN)
    yield "qwen2_moe-no-bias", tiny_config("qwen2_moe", qkv_bias=False)
    yield "qwen3_moe-bias", tiny_config("qwen3_moe", attention_bias=True)
    modern = tiny_config("qwen3_moe", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    modern["num_local_experts"] = modern.pop("num_experts")
    del modern["rope_theta"]
    yield "qwen3_moe-modern", modern
    yield from vision_language_configs()
    yield from hybrid_configs()


VISION_CONFIG = {
    "depth": 1,
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 16,
    "out_hidden_size": 32,
}


def vision_language_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return configs as Qwen2-VL and Qwen2.5-VL were published, flat, and with a `text_config`."""
    for arch in ("qwen2_vl", "qwen2_5_vl"):
        vision: dict[str, Any] = {
            **VISION_CONFIG,
            "embed_dim": 16,
            "fullatt_block_indexes": [0],
            "model_type": arch,
        }
        flat = {"hidden_size": 64, "head_dim": 16, "vision_config": vision}
        mrope: dict[str, Any] = {"type": "mrope", "mrope_section": [2, 3, 3]}
        yield f"{arch}-flat", tiny_config(arch, **flat, rope_scaling=mrope)
        yarn = {**mrope, **DOCUMENTED_YARN["rope_scaling"]}
        yield f"{arch}-yarn-tied", tiny_config(arch, **flat, tie_word_embeddings=True, rope_scaling=yarn)
        yield f"{arch}-nested", _nested(tiny_config(arch, hidden_size=64, head_dim=16), vision, mrope)
    for arch in ("qwen3_vl", "qwen3_vl_moe"):
        vision = {**VISION_CONFIG, "deepstack_visual_indexes": [0], "num_position_embeddings": 16}
        mrope = {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True}
        yield f"{arch}-untied", _nested(tiny_config(arch), vision, mrope)
        yield f"{arch}-tied", _nested(tiny_config(arch, tie_word_embeddings=True), vision, mrope)


def _nested(text: dict[str, Any], vision: dict[str, Any], mrope: dict[str, Any]) -> dict[str, Any]:
    outside = {name: text.pop(name) for name in ("model_type", "architectures", "tie_word_embeddings")}
    theta = text.pop("rope_theta")
    text["rope_parameters"] = {**mrope, "rope_type": "default", "rope_theta": theta}
    text["model_type"] = f"{outside['model_type']}_text"
    return {**outside, "text_config": text, "vision_config": vision}


def hybrid_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return configs with linear attention: Qwen3-Next is a text model, Qwen3.5 reads images too."""
    partial = {"partial_rotary_factor": 0.25}
    yield "qwen3_next-untied", tiny_config("qwen3_next", **partial, norm_topk_prob=True)
    yield "qwen3_next-tied", tiny_config("qwen3_next", tie_word_embeddings=True, mlp_only_layers=[1])
    yarn = {**DOCUMENTED_YARN["rope_scaling"], "rope_type": "yarn"}
    yield "qwen3_next-yarn", tiny_config("qwen3_next", **partial, rope_scaling=yarn, attention_bias=True)
    vision = {**VISION_CONFIG, "num_position_embeddings": 16}
    mrope = {**partial, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    for arch in ("qwen3_5", "qwen3_5_moe"):
        yield f"{arch}-untied", _nested(tiny_config(arch), vision, mrope)
        yield f"{arch}-tied", _nested(tiny_config(arch, tie_word_embeddings=True), vision, mrope)
    kinds = ["linear_attention"] * 3 + ["full_attention"]
    yield "qwen3_5_text-alone", tiny_config("qwen3_5_text", layer_types=kinds, **partial)
