"""Writes tiny GGUF files.

Source: `docs/gguf.md` of https://github.com/ggml-org/ggml
"""

import re
import struct
from itertools import islice

import numpy as np
from gguf_numbers import BLOCKS, numbers_in, random_blocks
from tiny_checkpoint import tiny_config, tiny_weights, write_checkpoint

LETTERS = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "model.layers": "blk", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp", "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate.": "ffn_gate_inp.",
    **{f"mlp.experts.0.{part}_proj": f"ffn_{part}_exps" for part in ("gate", "up", "down")},
}  # fmt: skip
ARCHITECTURES = {"qwen2": "qwen2", "qwen2_moe": "qwen2moe", "qwen3": "qwen3", "qwen3_moe": "qwen3moe"}
ALPHABET = [chr(code) for code in (*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x144))]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w"]
CONTROL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = [*ALPHABET, "he", "ll", "hell", "hello", "Ġw", *CONTROL_TOKENS, "<think>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def tokenizer_metadata(vocab_size):
    """Return the metadata of a byte-level tokenizer with five merges, padded as in converted files."""
    padding = [f"[PAD{index}]" for index in range(len(TOKENS), vocab_size)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": TOKENS + padding,
        "tokenizer.ggml.token_type": [1] * (len(TOKENS) - 4) + [3] * 3 + [4] + [5] * len(padding),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.eos_token_id": TOKENS.index("<|im_end|>"),
        "tokenizer.ggml.padding_token_id": TOKENS.index("<|endoftext|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def metadata_of(config):
    """Return the metadata of a converted file from a model's config.json."""
    arch = ARCHITECTURES[config["model_type"]]
    fields = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_theta"],
    }
    if "num_experts" in config:
        fields["expert_count"] = config["num_experts"]
        fields["expert_used_count"] = config["num_experts_per_tok"]
        fields["expert_feed_forward_length"] = config["moe_intermediate_size"]
    if "shared_expert_intermediate_size" in config:
        fields["expert_shared_feed_forward_length"] = config["shared_expert_intermediate_size"]
    return {
        "general.architecture": arch,
        **{f"{arch}.{name}": value for name, value in fields.items()},
        **tokenizer_metadata(config["vocab_size"]),
    }


def gguf_name(name):
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


def plain_bytes(kind, numbers):
    """Return numbers in a type without blocks, and their rounded values."""
    if kind == "BF16":
        upper = numbers.view(np.uint32) >> 16
        return upper.astype(np.uint16).tobytes(), (upper << 16).view(np.float32)
    numbers = numbers.astype(np.float16 if kind == "F16" else np.float32)
    return numbers.tobytes(), numbers.astype(np.float32)


def value_bytes(value):
    def text(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def item(value):
        return text(value) if isinstance(value, str) else struct.pack(f"<{LETTERS[type(value)][1]}", value)

    def kind(value):
        return 8 if isinstance(value, str) else LETTERS[type(value)][0]

    if isinstance(value, list):
        return struct.pack("<IIQ", 9, kind(value[0]), len(value)) + b"".join(map(item, value))
    return struct.pack("<I", kind(value)) + item(value)


def write_gguf(path, metadata, tensors, *, version=3, alignment=32):
    """Write a file.

    Args:
        path: Of the file.
        metadata: Texts, numbers, or lists of either, by key.
        tensors: By name, each the name or number of a type, a shape, and the bytes.
    """
    header = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        header += [struct.pack("<Q", len(key)), key.encode(), value_bytes(value)]
    data = bytearray()
    for name, (kind, shape, content) in tensors.items():
        number = BLOCKS[kind][0] if isinstance(kind, str) else kind
        header += [struct.pack("<Q", len(name)), name.encode(), struct.pack("<I", len(shape))]
        header += [struct.pack(f"<{len(shape)}Q", *reversed(shape)), struct.pack("<IQ", number, len(data))]
        data += content + bytes(-len(content) % alignment)
    start = b"".join(header)
    path.write_bytes(start + bytes(-len(start) % alignment) + data)
    return path


def gguf_config(arch, **changes):
    """Return the config.json of a model whose rows are whole blocks of 256."""
    config = tiny_config(arch, hidden_size=256, intermediate_size=256, head_dim=64, vocab_size=512, **changes)
    if "num_experts" in config:
        config.update(num_experts=4, moe_intermediate_size=256, norm_topk_prob=arch == "qwen3_moe")
    if "shared_expert_intermediate_size" in config:
        config["shared_expert_intermediate_size"] = 256
    return config


def gguf_tensors(config, kind_of, *, decode=True):
    """Return random tensors of a model as in a file, and their values by Hugging Face's names.

    Args:
        config: Of the model.
        kind_of: Gives the type of the matrix of a name in the file.
        decode: Say what blocks stand for, which takes seconds for millions of numbers.
    """
    stored, plain = {}, {}
    for seed, (names, numbers) in enumerate(grouped(tiny_weights(config))):
        shape = numbers.shape
        name = gguf_name(names[0])
        is_large = numbers.ndim > 1 and "gate_inp" not in name
        kind = kind_of(name) if is_large else "F32"
        if BLOCKS[kind][1] > 1:
            blocks = random_blocks(kind, shape, seed)
            content = blocks.tobytes()
            if decode:
                numbers = numbers_in(kind, blocks).astype(np.float32).reshape(shape)
        else:
            content, numbers = plain_bytes(kind, numbers)
        stored[name] = (kind, shape, content)
        plain.update({names[0]: numbers} if len(names) == 1 else zip(names, numbers, strict=True))
    return stored, plain


def grouped(weights):
    """Yield each tensor of a file with the names of the tensors stacked in it."""
    groups = {}
    for name in weights:
        groups.setdefault(re.sub(r"experts\.\d+", "experts", name), []).append(name)
    for names in groups.values():
        yield names, weights[names[0]] if len(names) == 1 else np.stack([weights[name] for name in names])


def write_tiny_gguf(folder, config, kind_of, metadata=None, **changes):
    """Write a model as a GGUF file and, dequantized, as a checkpoint. Return both."""
    stored, plain = gguf_tensors(config, kind_of)
    file = write_gguf(folder / "tiny.gguf", {**metadata_of(config), **(metadata or {})}, stored, **changes)
    return file, write_checkpoint(folder / "plain", config, plain)


def write_parts(folder, metadata, tensors, counts, name="tiny"):
    """Write a file in parts with a given number of tensors each, as `llama-gguf-split` does."""
    names, paths = iter(tensors), []
    for place, count in enumerate(counts):
        split = {"split.no": place, "split.count": len(counts), "split.tensors.count": len(tensors)}
        part = {each: tensors[each] for each in islice(names, count)}
        path = folder / f"{name}-{place + 1:05d}-of-{len(counts):05d}.gguf"
        paths.append(write_gguf(path, {**metadata, **split} if place == 0 else split, part))
    return paths
