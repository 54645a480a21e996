"""A text and its tokens as JSON, in the words that all outputs share."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from metal_gen.control_characters import CONTROLS

if TYPE_CHECKING:
    from metal_gen.generation.pieces import Generation, Piece
    from metal_gen.sampling.logprobs import TokenLogprobs
    from metal_gen.text.tool_calls import ToolCall

# JSON has no infinity; OpenAI's API returns this value instead.
LEAST_LOGPROB = -9999.0
# A lone surrogate has no UTF-8.
ESCAPED = re.compile(f"{CONTROLS.pattern}|[\ud800-\udfff]")

Record = dict[str, object]


def encode_json(document: Mapping[str, object]) -> str:
    """Encode a document on one line, and escape control characters, which could control a terminal."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    return ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def generation_record(generation: "Generation") -> Record:
    """Return a text, why it ended, what came of guesses, its token count, and `logprobs` if requested.

    Single texts and samples have their fields in this order, whatever they leave out or add.
    """
    record: Record = {"text": generation.text}
    if generation.thinking:
        record["reasoning"] = generation.thinking
    if thinking_tokens := generation.statistics.thinking_tokens:
        record["thinking"] = {"tokens": thinking_tokens, "cut": generation.thinking_cut}
    if generation.tool_calls:
        record["tool_calls"] = tool_call_records(generation.tool_calls)
    if generation.unparsed_tool_calls:
        record["unparsed_tool_calls"] = generation.unparsed_tool_calls
    if generation.complete is not None:
        record["complete"] = generation.complete
    record["finish_reason"] = generation.finish_reason.value
    if (counts := generation.statistics.speculation) is not None:
        record["speculation"] = {
            "source": counts.source,
            "passes": counts.passes,
            "drafted": counts.drafted,
            "accepted": counts.accepted,
            "tokens_per_pass": counts.tokens_per_pass,
        }
    record["completion_tokens"] = len(generation.token_ids)
    if generation.logprobs:
        pairs = zip(generation.token_ids, generation.logprobs, strict=True)
        record["logprobs"] = [{"token_id": id, **logprobs_record(logprobs)} for id, logprobs in pairs]
    return record


def tool_call_records(calls: "Sequence[ToolCall]") -> list[Record]:
    """Describe calls of functions, as OpenAI's API does; they can be sent back in a conversation."""
    return [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for number, call in enumerate(calls)
    ]


def piece_record(piece: "Piece") -> Record:
    """Return the text of a token, and its log-probabilities if they were requested."""
    record: Record = {"sample": piece.sample, "token_id": piece.token_id, "text": piece.text}
    if piece.thinking_end:
        record["reasoning"] = piece.thinking_end
    return record if piece.logprobs is None else {**record, **logprobs_record(piece.logprobs)}


def logprobs_record(logprobs: "TokenLogprobs") -> Record:
    """Return a token's log-probabilities. Tokens are ids, because a token's text may be half a character."""
    return {
        "model_logprob": finite(logprobs.model_logprob),
        "sampling_logprob": finite(logprobs.sampling_logprob),
        "top_model_logprobs": [[id, finite(value)] for id, value in logprobs.top_model_logprobs],
    }


def finite(logprob: float) -> float:
    """Return a log-probability that JSON can hold."""
    return max(logprob, LEAST_LOGPROB)
