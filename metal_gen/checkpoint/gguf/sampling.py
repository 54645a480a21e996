"""Maps the sampling settings of a GGUF file to the fields of generation_config.json.

Source: `gguf-py/gguf/metadata.py` of https://github.com/ggml-org/llama.cpp, which writes them.
"""

from collections.abc import Mapping
from typing import Any

SAMPLING = "general.sampling"
DRAWN = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
PENALTY = "penalty_repeat"
# Numbers in the file are float32, and come from decimal fractions with fewer digits.
DIGITS = 6


def generation_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of the equivalent generation_config.json; empty if there are none."""
    given = {
        name: metadata[f"{SAMPLING}.{field}"]
        for field, name in (*DRAWN.items(), (PENALTY, "repetition_penalty"))
        if f"{SAMPLING}.{field}" in metadata
    }
    config = {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in given.items()
    }
    return {**config, "do_sample": True} if config.keys() & set(DRAWN.values()) else config
