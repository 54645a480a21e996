"""The language part of a vision-language model, as if it were a model of its own.

With text alone all three axes of its positions (mrope) are equal, which is plain rope.

Source: `configuration_qwen2_vl.py`, `configuration_qwen3_vl.py` and `conversion_mapping.py` of
Hugging Face transformers; the names that mlx-vlm gives tensors.
"""

from collections.abc import Mapping
from typing import Any

from metal_gen.errors import CheckpointError

FAMILIES = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"})
# Fields that tell how images are read, or where text and images meet.
VISION_FIELDS = frozenset(
    """image_token_id text_config use_mrope video_token_id vision_config vision_end_token_id
    vision_start_token_id vision_token_id""".split()
)
VISION_PREFIXES = ("visual.", "model.visual.", "vision_tower.")
# What the language part's tensors begin with, and what they would in a text model.
LANGUAGE_PREFIXES = (("model.language_model.", "model."), ("language_model.", ""))


def language_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a config.json that describe the language part; all of them for a text model.

    They are in `text_config`, or, as Qwen2-VL was published, beside those of the vision part.

    Raises:
        CheckpointError: `text_config` is not an object.
    """
    if config.get("model_type") not in FAMILIES:
        return config
    text = config.get("text_config") or {}
    if not isinstance(text, Mapping):
        raise CheckpointError("config.json cannot be used: text_config must be an object")
    merged = {**config, **text, "model_type": config["model_type"]}
    tied = config.get("tie_word_embeddings")
    if config["model_type"].startswith("qwen2"):
        tied = tied or text.get("tie_word_embeddings")
    merged["tie_word_embeddings"] = tied
    return {name: value for name, value in merged.items() if name not in VISION_FIELDS}


def language_name(name: str) -> str | None:
    """What a tensor would be called in a text model; None for one of the vision part."""
    if name.startswith(VISION_PREFIXES):
        return None
    for prefix, plain in LANGUAGE_PREFIXES:
        if name.startswith(prefix):
            return plain + name.removeprefix(prefix)
    return name
