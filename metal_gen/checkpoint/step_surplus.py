"""Estimates how much larger the arrays of a decode step are than what it reads, without MLX.

Only config.json is read, so that a program can ask before it imports MLX.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metal_gen.config.settings import Settings
from metal_gen.errors import MetalGenError
from metal_gen.files.json_file import read_json
from metal_gen.hub.locate import find_checkpoint
from metal_gen.models.config.model_config import ModelConfig

# An element of a quantized matrix holds this many bits.
PACKED_BITS = 32
# If config.json does not say.
USUAL_BITS = 4


def step_surplus(settings: Settings, *, tokens: int, slots: int = 1) -> float:
    """Return elements in all weights and the cache, divided by the weights that a step reads.

    Args:
        settings: `model`, `quantize`, `max_seq_len` and `batch_size` count.
        tokens: Capacity of the cache if the settings have none.
        slots: Texts at once if the settings do not say.

    Returns:
        1 or more; 1 if the model is not on this disk, is a GGUF file or cannot be read.
    """
    if settings.model is None:
        return 1
    try:
        folder = find_checkpoint(settings.model)
        fields = read_json(Path(folder) / "config.json")
        config = ModelConfig.from_hf(fields)
    except (MetalGenError, OSError):
        return 1
    share = _bits(settings, fields) / PACKED_BITS
    capacity = (settings.max_seq_len or tokens) * (settings.batch_size or slots)
    cache = 2 * config.num_cached_layers * config.num_key_value_heads * config.head_dim * capacity
    read, unread = _weights(config)
    return 1 + (unread * share + cache) / (read * share)


def _weights(config: ModelConfig) -> tuple[int, int]:
    """Return the weights that a step reads, and those of experts that it does not choose."""
    heads = 2 * (config.num_attention_heads + config.num_key_value_heads)
    read, unread = config.vocab_size * config.hidden_size, 0
    for layer in range(config.num_hidden_layers):
        read += heads * config.head_dim * config.hidden_size
        experts = config.experts
        if experts is None or not experts.are_in(layer):
            read += 3 * config.hidden_size * config.intermediate_size
            continue
        one = 3 * config.hidden_size * experts.moe_intermediate_size
        read += (
            experts.num_experts_per_tok * one
            + 3 * config.hidden_size * experts.shared_expert_intermediate_size
        )
        unread += (experts.num_experts - experts.num_experts_per_tok) * one
    return read, unread


def _bits(settings: Settings, fields: Mapping[str, Any]) -> int:
    """Return the bits of a weight in an element; `PACKED_BITS` if weights are not quantized."""
    if settings.quantize is not None:
        digits = "".join(character for character in settings.quantize[:1] if character.isdecimal())
        return int(digits) if digits else USUAL_BITS
    quantization = fields.get("quantization") or fields.get("quantization_config")
    if not quantization:
        return PACKED_BITS
    bits = quantization.get("bits") if isinstance(quantization, dict) else None
    return bits if isinstance(bits, int) and 0 < bits <= PACKED_BITS else USUAL_BITS
