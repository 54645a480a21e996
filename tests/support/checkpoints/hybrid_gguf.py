"""Writes tiny GGUF files of models with linear attention, as llama.cpp converts them.

Follows `Qwen3NextModel` and `_LinearAttentionVReorderBase` in `conversion/qwen.py` of
https://github.com/ggml-org/llama.cpp, with numpy in place of torch.
"""

import re

import numpy as np
from gguf_file import gguf_name, grouped, plain_bytes, tokenizer_metadata, write_gguf
from gguf_numbers import BLOCKS, numbers_in, random_blocks
from tiny_checkpoint import tiny_config, tiny_weights, write_checkpoint

ARCHITECTURES = {"qwen3_next": "qwen3next", "qwen3_5_text": "qwen35", "qwen3_5_moe_text": "qwen35moe"}
NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "linear_attn.in_proj_qkvz": "ssm_in", "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_ba": "ssm_ba", "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_b": "ssm_beta", "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.conv1d": "ssm_conv1d", "linear_attn.norm": "ssm_norm", "linear_attn.out_proj": "ssm_out",
    "linear_attn.A_log": "ssm_a", "linear_attn.dt_bias": "ssm_dt.bias",
    "mtp.fc": "blk.4.nextn.eh_proj", "mtp.norm": "blk.4.nextn.shared_head_norm",
    "mtp.pre_fc_norm_embedding": "blk.4.nextn.enorm", "mtp.pre_fc_norm_hidden": "blk.4.nextn.hnorm",
    "mtp.layers.0": "blk.4",
}  # fmt: skip


def hybrid_config(arch, size=64, **changes):
    """Return the config.json of a model in which several value heads share a key head."""
    config = tiny_config(arch, partial_rotary_factor=0.25, vocab_size=320, norm_topk_prob=True)
    config |= {"hidden_size": size, "intermediate_size": size, "head_dim": 64, "mtp_num_hidden_layers": 1}
    config |= {"linear_num_key_heads": 4, "linear_num_value_heads": 8}
    config |= {"linear_key_head_dim": 32, "linear_value_head_dim": 32}
    if "num_experts" in config:
        sizes = ("moe_intermediate_size", "shared_expert_intermediate_size")
        config |= {**dict.fromkeys(sizes, size), "num_experts": 3}
    return {**config, **changes}


def hybrid_metadata(config, **fields):
    """Return the metadata of a converted file."""
    arch = ARCHITECTURES[config["model_type"]]
    heads = config["linear_num_value_heads"]
    found = {
        "block_count": config["num_hidden_layers"] + config["mtp_num_hidden_layers"],
        "nextn_predict_layers": config["mtp_num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_theta"],
        "rope.dimension_count": int(config["head_dim"] * config["partial_rotary_factor"]),
        "rope.dimension_sections": [11, 11, 10, 0],
        "ssm.conv_kernel": config["linear_conv_kernel_dim"],
        "ssm.state_size": config["linear_key_head_dim"],
        "ssm.group_count": config["linear_num_key_heads"],
        "ssm.time_step_rank": heads,
        "ssm.inner_size": heads * config["linear_value_head_dim"],
        "full_attention_interval": 4,
    }
    if "num_experts" in config:
        found["expert_count"] = config["num_experts"]
        found["expert_used_count"] = config["num_experts_per_tok"]
        found["expert_feed_forward_length"] = config["moe_intermediate_size"]
        found["expert_shared_feed_forward_length"] = config["shared_expert_intermediate_size"]
    named = {f"{arch}.{name}": value for name, value in (found | fields).items() if value is not None}
    return {"general.architecture": arch, **named, **tokenizer_metadata(config["vocab_size"])}


def with_mtp(config):
    """Return weights of the model, and of a layer for multi-token prediction."""
    weights = tiny_weights(config)
    random, hidden = np.random.RandomState(5), config["hidden_size"]
    shapes = {f"mtp.{name}.weight": (hidden,) for name in ("norm", "pre_fc_norm_hidden")}
    shapes |= {"mtp.pre_fc_norm_embedding.weight": (hidden,), "mtp.fc.weight": (hidden, 2 * hidden)}
    for name, array in weights.items():
        if name.startswith("model.layers.3."):
            shapes[name.replace("model.layers.3.", "mtp.layers.0.")] = array.shape
    return weights | {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }


def from_grouped_to_tiled(array, axis, config):
    """Swap key heads and their value heads on an axis of value heads."""
    groups, heads = config["linear_num_key_heads"], config["linear_num_value_heads"]
    axis %= array.ndim
    split = (*array.shape[:axis], groups, heads // groups, -1, *array.shape[axis + 1 :])
    return array.reshape(split).swapaxes(axis, axis + 1).reshape(array.shape)


def moved(name, array, config):
    """Return a tensor of Qwen3.5 with its value heads in the order of the file."""
    keys = 2 * config["linear_num_key_heads"] * config["linear_key_head_dim"]
    part = name.partition(".linear_attn.")[2]
    if part.startswith(("in_proj_qkv.", "conv1d.")):
        return np.concatenate([array[:keys], from_grouped_to_tiled(array[keys:], 0, config)])
    if part.startswith("out_proj."):
        return from_grouped_to_tiled(array, 1, config)
    if part.startswith(("in_proj_", "A_log", "dt_bias")):
        return from_grouped_to_tiled(array, 0, config)
    return array


def converted(name, array, config):
    """Return the tensors of the file, by Hugging Face's names."""
    if name.endswith(".A_log"):
        array = -np.exp(array)
    elif re.search(r"norm(_\w+)?\.weight", name) and "linear_attn.norm" not in name:
        array = array + 1
    elif name.endswith("conv1d.weight"):
        array = array.squeeze(1)
    if config["model_type"] != "qwen3_next":
        return {name: moved(name, array, config)}
    if "in_proj_qkvz" not in name:
        return {name: array}
    groups = config["linear_num_key_heads"]
    key, size = config["linear_key_head_dim"], config["linear_value_head_dim"]
    values = size * config["linear_num_value_heads"] // groups
    by_head = array.reshape(groups, 2 * key + 2 * values, -1)
    parts = np.split(by_head, [key, 2 * key, 2 * key + values], axis=1)
    flat = [part.reshape(-1, array.shape[1]) for part in parts]
    return {name.replace("qkvz", "qkv"): np.concatenate(flat[:3]), name.replace("qkvz", "z"): flat[3]}


def hybrid_tensors(config, weights, kind_of=lambda name: "F32"):
    """Return the tensors of a file, and their values in float32.

    Args:
        config: Configuration of the model.
        weights: Weights in Hugging Face's layout; quantized ones get random blocks instead.
        kind_of: Returns the type of a matrix by its name in the file.
    """
    stored, plain = {}, {}
    for seed, (names, numbers) in enumerate(grouped(weights)):
        for theirs, array in converted(names[0], numbers, config).items():
            name, shape = name_in_file(theirs), array.shape
            is_large = array.ndim > 1 and not re.search(r"gate_inp|conv1d|blk\.4", name)
            kind = kind_of(name) if is_large else "F32"
            if BLOCKS[kind][1] > 1:
                blocks = random_blocks(kind, shape, seed)
                content, array = blocks.tobytes(), numbers_in(kind, blocks).reshape(shape)
            else:
                content, array = plain_bytes(kind, np.ascontiguousarray(array))
            stored[name] = (kind, shape, content)
            plain[name] = ("F32", shape, array.astype(np.float32).tobytes())
    return stored, plain


def name_in_file(name):
    """Return llama.cpp's name of a tensor."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return gguf_name(name)


def write_hybrid(folder, config, **fields):
    """Write a model as a float32 GGUF file, and as the checkpoint that it was made from. Return both."""
    weights = with_mtp(config)
    stored, _ = hybrid_tensors(config, weights)
    file = write_gguf(folder / "tiny.gguf", hybrid_metadata(config, **fields), stored)
    return file, write_checkpoint(folder / "checkpoint", config, weights)
