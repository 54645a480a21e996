"""The language part of a multimodal model, read as if it were a model of its own.

Text alone needs no other part of a vision-language model. The three axes of its positions (mrope) are equal
for text, so plain rope computes the same. Layers for multi-token prediction (mtp) are no part of it either.

Source: `configuration_qwen2_vl.py`, `configuration_qwen3_5.py` and `conversion_mapping.py` of
Hugging Face transformers; the tensor names of mlx-vlm.
"""

from collections.abc import Mapping
from typing import Any

from metal_gen.errors import CheckpointError

VISION_LANGUAGE = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"})
WITH_OTHER_PARTS = VISION_LANGUAGE | {"qwen3_next"}
# Fields that describe how images are read, or where text and images meet.
VISION_FIELDS = frozenset(
    """image_token_id text_config use_mrope video_token_id vision_config vision_end_token_id
    vision_start_token_id vision_token_id""".split()
)
MTP_PREFIXES = ("mtp.", "model.mtp.")
OTHER_PREFIXES = ("visual.", "model.visual.", "vision_tower.", *MTP_PREFIXES)
# Prefixes of the language part's tensors, and the prefixes that replace them in a text model.
LANGUAGE_PREFIXES = (("model.language_model.", "model."), ("language_model.", ""))
# Top-level names in a checkpoint that was saved without its head, as embedding models are.
BASE_PARTS = ("embed_tokens", "layers", "norm")


def family(model_type: str) -> str:
    """Return the family of a model type: a language part that was saved alone is `..._text`."""
    return model_type.removesuffix("_text")


def language_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of a config.json that describe the language part; all of them for a text model.

    They are in `text_config`, or, in Qwen2-VL as published, next to those of the vision part.

    Raises:
        CheckpointError: `text_config` is not an object.
    """
    model_type = family(str(config.get("model_type")))
    if model_type not in VISION_LANGUAGE:
        return config
    text = config.get("text_config") or {}
    if not isinstance(text, Mapping):
        raise CheckpointError("config.json cannot be used: text_config must be an object")
    merged = {**config, **text, "model_type": model_type}
    # Either object may have the field. A head that is stored anyway is used (see `checkpoint.tied_head`).
    merged["tie_word_embeddings"] = config.get("tie_word_embeddings") or text.get("tie_word_embeddings")
    return {name: value for name, value in merged.items() if name not in VISION_FIELDS}


def model_name(name: str, *, has_other_parts: bool = True) -> str | None:
    """Return the name that a tensor or module would have in a text model that was saved with its head.

    Args:
        name: Name in the file.
        has_other_parts: Whether the checkpoint may have parts other than the language part.

    Returns:
        The name; None if it belongs to another part.
    """
    if has_other_parts:
        name = _without_prefix(name)
        if name.startswith(OTHER_PREFIXES):
            return None
    return f"model.{name}" if name.partition(".")[0] in BASE_PARTS else name


def mtp_name(name: str) -> str | None:
    """Return the name, beginning with `mtp.`, of a tensor of the layers for multi-token prediction.

    Return None if it does not belong to them.
    """
    plain = _without_prefix(name)
    return plain.removeprefix("model.") if plain.startswith(MTP_PREFIXES) else None


def _without_prefix(name: str) -> str:
    """Return a name as in a model that has no other parts."""
    for prefix, plain in LANGUAGE_PREFIXES:
        if name.startswith(prefix):
            return plain + name.removeprefix(prefix)
    return name
