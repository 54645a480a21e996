"""Fields of a row that are handed on to its record."""

from collections.abc import Mapping

# What a record says itself.
RECORD_FIELDS = (
    "id",
    "text",
    "texts",
    "reasoning",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "logprobs",
    "seed",
    "error",
)
PREFIX = "input_"


def kept_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """Fields as the record has them: what is called as one of its own gets `input_` before its name."""
    kept: dict[str, object] = {}
    for name, value in fields.items():
        own = name
        while own in RECORD_FIELDS or (own != name and own in fields):
            own = PREFIX + own
        kept[own] = value
    return kept
