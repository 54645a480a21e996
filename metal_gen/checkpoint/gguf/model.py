"""Maps the model in a GGUF file to Hugging Face's layout: its config.json and its tensors' names.

Source: of https://github.com/ggml-org/llama.cpp, `convert_hf_to_gguf.py` and `gguf-py/gguf/constants.py`,
which write such files, and `src/llama-model.cpp`, which reads them.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metal_gen.checkpoint.gguf.block_forms import FORMS
from metal_gen.checkpoint.gguf.header import GgufHeader, GgufTensor
from metal_gen.checkpoint.gguf.tokenizer import end_ids
from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.models.config.fields import LARGEST_INTEGER, FieldReader, quoted
from metal_gen.models.config.model_config import MOST_LAYERS

ARCHITECTURE = "general.architecture"
MODEL_TYPES = {"qwen2": "qwen2", "qwen2moe": "qwen2_moe", "qwen3": "qwen3", "qwen3moe": "qwen3_moe"}
# Fields of the metadata after the architecture's name, and their names in config.json.
SIZES = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "context_length": "max_position_embeddings",
}
DENSE_SIZES = {"feed_forward_length": "intermediate_size"}
EXPERT_SIZES = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
SHARED_EXPERT_SIZES = {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"}
ROPE_SCALING = {"factor": "factor", "yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}
# Other fields that are read, and fields that do not affect the generated text.
OTHER_FIELDS = frozenset(
    """attention.head_count_kv attention.key_length attention.value_length
    attention.layer_norm_rms_epsilon rope.freq_base rope.dimension_count rope.scaling.type
    rope.scaling.original_context_length rope.scaling.attn_factor rope.scaling.finetuned vocab_size""".split()
)
KNOWN_FIELDS = OTHER_FIELDS.union(
    SIZES, DENSE_SIZES, EXPERT_SIZES, SHARED_EXPERT_SIZES, (f"rope.scaling.{name}" for name in ROPE_SCALING)
)

NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
NAMES_IN_LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.switch_mlp.gate_proj",
    "ffn_up_exps": "mlp.switch_mlp.up_proj",
    "ffn_down_exps": "mlp.switch_mlp.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
IN_A_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
SHARED_EXPERT_GATE = re.compile(r"blk\.\d+\.ffn_gate_inp_shexp\.weight")


def model_config(header: GgufHeader) -> dict[str, Any]:
    """Return the contents of the equivalent config.json.

    Raises:
        CheckpointError: The file's architecture is not supported, or its metadata is incomplete.
    """
    fields = FieldReader(header.metadata, f"the metadata of {header.path}")
    architecture = fields.fields.get(ARCHITECTURE)
    if not isinstance(architecture, str) or architecture not in MODEL_TYPES:
        raise fields.error(
            f"{ARCHITECTURE} is {quoted(architecture)}",
            f"supported in GGUF files: {', '.join(MODEL_TYPES)}",
        )
    model_type = MODEL_TYPES[architecture]
    sizes = SIZES | (EXPERT_SIZES if model_type.endswith("_moe") else DENSE_SIZES)
    if model_type == "qwen2_moe":
        sizes |= SHARED_EXPERT_SIZES
    config: dict[str, Any] = {
        name: fields.integer(
            f"{architecture}.{field}",
            maximum=MOST_LAYERS if name == "num_hidden_layers" else LARGEST_INTEGER,
        )
        for field, name in sizes.items()
    }
    heads = config["num_attention_heads"]
    head_dim = fields.integer(f"{architecture}.attention.key_length", max(1, config["hidden_size"] // heads))
    for name in ("attention.value_length", "rope.dimension_count"):
        if fields.integer(f"{architecture}.{name}", head_dim) != head_dim:
            raise fields.error(f"{architecture}.{name} is not the size of a head, {head_dim}")
    prefix = f"{architecture}."
    unknown = {
        name: value
        for name, value in header.metadata.items()
        if name.startswith(prefix) and name.removeprefix(prefix) not in KNOWN_FIELDS
    }
    return unknown | config | {
        "model_type": model_type,
        "head_dim": head_dim,
        "num_key_value_heads": fields.integer(f"{architecture}.attention.head_count_kv", heads),
        "rms_norm_eps": fields.number(f"{architecture}.attention.layer_norm_rms_epsilon"),
        "rope_theta": fields.number(f"{architecture}.rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(fields, architecture),
        "vocab_size": _vocabulary_size(header),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "norm_topk_prob": model_type == "qwen3_moe",
        "eos_token_id": sorted(end_ids(header.metadata)),
    }  # fmt: skip


def _rope_scaling(fields: FieldReader, architecture: str) -> dict[str, Any] | None:
    prefix = f"{architecture}.rope.scaling"
    kind = fields.fields.get(f"{prefix}.type", "none")
    if kind == "none":
        return None
    if fields.number(f"{prefix}.attn_factor", 1.0) != 1.0:
        raise fields.error(f"{prefix}.attn_factor is not 1, and only 1 is supported")
    scaling: dict[str, Any] = {"rope_type": kind}
    for field, name in ROPE_SCALING.items():
        scaling[name] = fields.optional_number(f"{prefix}.{field}")
    if fields.has(f"{prefix}.original_context_length"):
        scaling["original_max_position_embeddings"] = fields.integer(f"{prefix}.original_context_length")
    return {name: value for name, value in scaling.items() if value is not None}


def _vocabulary_size(header: GgufHeader) -> int:
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(f"{header.path} cannot be used: it has no matrix token_embd.weight")
    return embedding.shape[0]


def model_tensors(header: GgufHeader) -> dict[str, GgufTensor]:
    """Return the tensors by the model's names.

    Raises:
        CheckpointError: A tensor is of an unsupported type.
    """
    named: dict[str, GgufTensor] = {}
    for tensor in header.tensors.values():
        if tensor.dtype not in FORMS:
            raise CheckpointError(
                f"{header.path} cannot be used: {excerpt(tensor.name)} is stored as {tensor.dtype}, "
                f"and only {', '.join(FORMS)} are supported",
                "get the model as Q4_K_M, Q8_0, BF16 or F16",
            )
        if SHARED_EXPERT_GATE.fullmatch(tensor.name) and len(tensor.shape) == 1:
            # A matrix of one row, which some files store as a vector.
            tensor = replace(tensor, shape=(1, *tensor.shape))
        name = model_name(tensor.name)
        if name in named:
            raise CheckpointError(
                f"{header.path} cannot be used: {named[name].name} and {excerpt(tensor.name)} are the same "
                "part of the model"
            )
        named[name] = tensor
    return named


def model_name(name: str) -> str:
    """Return the name of a tensor in Hugging Face's layout, or its own if it has no place there."""
    if layer := IN_A_LAYER.fullmatch(name):
        index, part, kind = layer.groups()
        if part in NAMES_IN_LAYERS:
            return f"model.layers.{index}.{NAMES_IN_LAYERS[part]}.{kind}"
        return name
    part, _, kind = name.rpartition(".")
    return f"{NAMES[part]}.{kind}" if part in NAMES else name


def name_in_file(name: str) -> str:
    """Return the name in a GGUF file of a tensor in Hugging Face's layout."""
    part, _, kind = name.rpartition(".")
    if layer := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", part):
        return f"blk.{layer[1]}.{_turned(NAMES_IN_LAYERS).get(layer[2], layer[2])}.{kind}"
    return f"{_turned(NAMES).get(part, part)}.{kind}"


def _turned(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in names.items()}
