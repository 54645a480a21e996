"""Maps the metadata of a GGUF file to the config.json of Hugging Face's layout.

Source: of https://github.com/ggml-org/llama.cpp, `conversion/` and `gguf-py/gguf/constants.py`, which write
such files, and `src/llama-model.cpp`, which reads them.
"""

from typing import Any

from metal_gen.checkpoint.gguf.header import OTHER_FILE, GgufHeader
from metal_gen.checkpoint.gguf.hybrids import HYBRID_FIELDS, read_hybrid
from metal_gen.checkpoint.gguf.tokenizer import end_ids
from metal_gen.errors import CheckpointError
from metal_gen.models.config.experts import FAMILIES, WITH_SHARED_EXPERT
from metal_gen.models.config.fields import LARGEST_INTEGER, FieldReader, quoted
from metal_gen.models.config.linear_attention import HYBRIDS
from metal_gen.models.config.model_config import MOST_LAYERS

ARCHITECTURE = "general.architecture"
MODEL_TYPES = {
    "qwen2": "qwen2",
    "qwen2moe": "qwen2_moe",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
    "qwen3next": "qwen3_next",
    "qwen35": "qwen3_5",
    "qwen35moe": "qwen3_5_moe",
}
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
    SIZES,
    DENSE_SIZES,
    EXPERT_SIZES,
    SHARED_EXPERT_SIZES,
    HYBRID_FIELDS,
    (f"rope.scaling.{name}" for name in ROPE_SCALING),
)


def model_config(header: GgufHeader) -> dict[str, Any]:
    """Return the contents of the equivalent config.json.

    Raises:
        CheckpointError: The file's architecture is not supported, or its metadata is incomplete.
    """
    fields = header.fields
    architecture = fields.fields.get(ARCHITECTURE)
    if not isinstance(architecture, str) or architecture not in MODEL_TYPES:
        raise fields.error(
            f"{ARCHITECTURE} is {quoted(architecture)}",
            f"supported in GGUF files: {', '.join(MODEL_TYPES)}",
        )
    model_type = MODEL_TYPES[architecture]
    config = _sizes(fields, architecture, model_type)
    heads = config["num_attention_heads"]
    prefix = f"{architecture}."
    unknown = {
        name: value
        for name, value in header.metadata.items()
        if name.startswith(prefix) and name.removeprefix(prefix) not in KNOWN_FIELDS
    }
    return unknown | config | {
        "model_type": model_type,
        "num_key_value_heads": fields.integer(f"{architecture}.attention.head_count_kv", heads),
        "rms_norm_eps": fields.number(f"{architecture}.attention.layer_norm_rms_epsilon"),
        "rope_theta": fields.number(f"{architecture}.rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(fields, architecture),
        "vocab_size": _vocabulary_size(header),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "norm_topk_prob": model_type != "qwen2_moe",
        "eos_token_id": sorted(end_ids(header.metadata)),
    }  # fmt: skip


def _sizes(fields: FieldReader, architecture: str, model_type: str) -> dict[str, Any]:
    names = SIZES | (EXPERT_SIZES if model_type in FAMILIES else DENSE_SIZES)
    if model_type in WITH_SHARED_EXPERT:
        names |= SHARED_EXPERT_SIZES
    sizes: dict[str, Any] = {
        name: fields.integer(
            f"{architecture}.{field}",
            maximum=MOST_LAYERS if name == "num_hidden_layers" else LARGEST_INTEGER,
        )
        for field, name in names.items()
    }
    usual = max(1, sizes["hidden_size"] // sizes["num_attention_heads"])
    head_dim = sizes["head_dim"] = fields.integer(f"{architecture}.attention.key_length", usual)
    is_hybrid = model_type in HYBRIDS
    for name in ("attention.value_length", *(() if is_hybrid else ("rope.dimension_count",))):
        if fields.integer(f"{architecture}.{name}", head_dim) != head_dim:
            raise fields.error(f"{architecture}.{name} is not the size of a head, {head_dim}")
    return sizes | read_hybrid(fields, architecture, sizes) if is_hybrid else sizes


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
        raise CheckpointError(f"{header.path} cannot be used: it has no matrix token_embd.weight", OTHER_FILE)
    return embedding.shape[0]
