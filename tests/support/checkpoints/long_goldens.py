"""Tiny checkpoints and prompts for which a GPU uses its fused attention kernels.

Their head sizes are 64 and 128. Their prompts have more than 8 tokens, and some answers pass 1,024 and 4,096
tokens, where MLX changes to other kernels.
"""

from collections.abc import Iterator
from typing import Any

from tiny_checkpoint import VOCAB, tiny_config

NEW_TOKENS = 8
# The answers to the last two lengths pass 1,024 and 4,096 tokens.
FEW, SOME, THOUSAND, LONGEST = 9, 30, 1020, 4092


def long_goldens() -> Iterator[tuple[str, dict[str, Any], int]]:
    """Yield name, config.json and number of prompt tokens."""
    long: dict[str, Any] = {"max_position_embeddings": 8192}
    window = {"use_sliding_window": True, "sliding_window": 200, "max_window_layers": 1}
    for length in (FEW, SOME, THOUSAND):
        yield f"qwen3-d64-{length}", tiny_config("qwen3", head_dim=64, **long), length
    for length in (FEW, SOME):
        yield f"qwen2-d128-gqa7-{length}", _heads(14, 2, tiny_config("qwen2", head_dim=128, **long)), length
    yield f"qwen3-d128-gqa1-{SOME}", _heads(2, 2, tiny_config("qwen3", head_dim=128, **long)), SOME
    yield f"qwen2-d128-gqa8-{THOUSAND}", _heads(8, 1, tiny_config("qwen2", head_dim=128, **long)), THOUSAND
    yield f"qwen3_moe-d128-{SOME}", tiny_config("qwen3_moe", head_dim=128, **long), SOME
    yield f"qwen2-sliding-d64-{THOUSAND}", tiny_config("qwen2", head_dim=64, **window, **long), THOUSAND
    for arch, head_dim in (("qwen3", 128), ("qwen2", 64)):
        config = _heads(2, 1, tiny_config(arch, head_dim=head_dim, num_hidden_layers=1, **long))
        yield f"{arch}-d{head_dim}-gqa2-{LONGEST}", config, LONGEST


def hybrid_goldens() -> Iterator[tuple[str, dict[str, Any], int]]:
    """Yield the same for linear attention with head sizes as published.

    The lengths are those at which chunks end, and one more or less.
    """
    sizes = {"linear_key_head_dim": 128, "linear_value_head_dim": 128, "partial_rotary_factor": 0.25}
    for arch in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"):
        for length in (1, 63, 64, 65, 130):
            yield f"{arch}-{length}", tiny_config(arch, num_hidden_layers=4, **sizes), length


def long_prompt(length: int) -> list[int]:
    """Return a prompt of so many token ids, without a period that a model could go on with."""
    return [(17 * at * at + 31 * at + at * at * at // 7 + 5) % VOCAB for at in range(length)]


def _heads(count: int, kv_count: int, config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "num_attention_heads": count, "num_key_value_heads": kv_count}
