"""A text and its tokens as JSON: the words that all outputs share."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from metal_gen.control_characters import CONTROLS

if TYPE_CHECKING:
    from metal_gen.generation.pieces import Generation, Piece
    from metal_gen.sampling.logprobs import TokenLogprobs

# JSON has no infinity; this is what OpenAI's API gives for it.
LEAST_LOGPROB = -9999.0
# A lone half of a character has no UTF-8.
ESCAPED = re.compile(f"{CONTROLS.pattern}|[\ud800-\udfff]")

Record = dict[str, object]


def encode_json(document: Mapping[str, object]) -> str:
    """A document on one line, in which what would control a terminal is escaped."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    return ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def generation_record(generation: "Generation") -> Record:
    """Say what a text is, why it ended and how many tokens it took; `logprobs` where they were asked for."""
    record: Record = {"text": generation.text}
    if generation.thinking:
        record["reasoning"] = generation.thinking
    record["finish_reason"] = generation.finish_reason.value
    record["completion_tokens"] = len(generation.token_ids)
    if generation.logprobs:
        pairs = zip(generation.token_ids, generation.logprobs, strict=True)
        record["logprobs"] = [{"token_id": id, **logprobs_record(logprobs)} for id, logprobs in pairs]
    return record


def piece_record(piece: "Piece") -> Record:
    """Say what a token brought; its log-probabilities where they were asked for."""
    record: Record = {"sample": piece.sample, "token_id": piece.token_id, "text": piece.text}
    return record if piece.logprobs is None else {**record, **logprobs_record(piece.logprobs)}


def logprobs_record(logprobs: "TokenLogprobs") -> Record:
    """A token's log-probabilities; tokens are named by ids, for a text alone may be half a character."""
    return {
        "model_logprob": finite(logprobs.model_logprob),
        "sampling_logprob": finite(logprobs.sampling_logprob),
        "top_model_logprobs": [[id, finite(value)] for id, value in logprobs.top_model_logprobs],
    }


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(logprob, LEAST_LOGPROB)
