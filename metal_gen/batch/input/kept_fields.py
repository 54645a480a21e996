"""Copies fields of a row to its record."""

from collections.abc import Collection, Mapping

# Fields that the record itself defines.
RECORD_FIELDS = (
    "id",
    "text",
    "texts",
    "reasoning",
    "thinking",
    "complete",
    "tool_calls",
    "unparsed_tool_calls",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "logprobs",
    "seed",
    "error",
)
PREFIX = "input_"


def kept_fields(
    fields: Mapping[str, object], record_fields: Collection[str] = RECORD_FIELDS
) -> dict[str, object]:
    """Return the fields to copy; a field named like one of the record's own gets the prefix `input_`."""
    kept: dict[str, object] = {}
    for name, value in fields.items():
        own = name
        while own in record_fields or (own != name and own in fields):
            own = PREFIX + own
        kept[own] = value
    return kept
