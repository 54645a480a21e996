"""Builds output records, each in the form of its row; a record does not depend on when the row is run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeGuard

from metal_gen.batch.input.rows import BatchRow, RowError, RowErrorCode, RowForm, id_key, line_key
from metal_gen.batch.token_texts import TokenTexts
from metal_gen.generation.record import Record, encode_json, finite, generation_record, tool_call_records

if TYPE_CHECKING:
    from metal_gen.generation.pieces import Generation

REQUEST_FIELDS = {"id", "custom_id", "response", "error"}
REQUEST_PREFIX = "batch_req_"
# A record without an error has at least one of these fields.
RESULTS = {"text", "texts", "logprob", "ranking"}


def success_record(
    row: BatchRow, generations: Sequence["Generation"], prompt_tokens: int, seed: int, tokens: TokenTexts
) -> Record:
    """Return the record of a row that succeeded.

    Args:
        row: The row; its form decides the form of the record.
        generations: The samples, at least one.
        prompt_tokens: Length of the prompt in tokens, chat template included.
        seed: Seed of the random draws.
        tokens: Gives the text of tokens in OpenAI-style log-probabilities; the native form uses token ids.
    """
    if row.form is not RowForm.NATIVE:
        body = _response_body(row.form, generations, prompt_tokens, seed, tokens)
        return _request_record(row.number, row.id, {"status_code": 200, "body": body}, None)
    samples = [generation_record(generation) for generation in generations]
    if len(samples) > 1:
        counts = {"prompt_tokens": prompt_tokens, "seed": seed}
        return {"id": row.id, **row.carried, "texts": samples, **counts}
    sample = samples[0]
    completion_tokens, logprobs = sample.pop("completion_tokens"), sample.pop("logprobs", None)
    record = {
        "id": row.id,
        **row.carried,
        **sample,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "seed": seed,
    }
    return record if logprobs is None else {**record, "logprobs": logprobs}


def error_record(error: RowError) -> Record:
    """Return the record of a failed row; keeps what was generated anyway, such as unfinished thinking."""
    said: Record = {"code": error.code.value, "line": error.number, "message": error.reason}
    if error.hint:
        said["hint"] = error.hint
    if error.form is not RowForm.NATIVE:
        response = error.given.get("response")
        return _request_record(error.number, error.id, response, said)
    # The beginning of an answer is kept, but not an empty one.
    has_text = error.code is RowErrorCode.INCOMPLETE
    kept = {name: value for name, value in error.given.items() if name != "text" or has_text}
    return {"id": error.id, **error.carried, "error": said, **kept}


def record_key(record: Mapping[str, object]) -> tuple[str, bool] | None:
    """Return the key of the row that a record belongs to, and whether the row failed.

    Returns:
        None if the object is not a record.
    """
    is_request = record.keys() == REQUEST_FIELDS and str(record["id"]).startswith(REQUEST_PREFIX)
    id = record.get("custom_id" if is_request else "id")
    error = record.get("error")
    if isinstance(error, dict):
        line, code = error.get("line"), error.get("code")
        if id is None or code == RowErrorCode.DUPLICATE_ID:
            return (line_key(line), True) if _is_whole(line) else None
    elif not (is_request and record["response"]) and not RESULTS & record.keys():
        return None
    if not isinstance(id, str) and not _is_whole(id):
        return None
    return id_key(id), isinstance(error, dict)


def encode_record(record: Mapping[str, object]) -> bytes:
    """Return a record as a line of UTF-8 JSON."""
    return encode_json(record).encode() + b"\n"


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _request_record(number: int, id: object, response: object, error: Record | None) -> Record:
    return {"id": f"{REQUEST_PREFIX}{number}", "custom_id": id, "response": response, "error": error}


def _response_body(
    form: RowForm, generations: Sequence["Generation"], prompt_tokens: int, seed: int, tokens: TokenTexts
) -> Record:
    is_chat = form is RowForm.CHAT
    choice = _chat_choice if is_chat else _completion_choice
    completion_tokens = sum(len(generation.token_ids) for generation in generations)
    return {
        "object": "chat.completion" if is_chat else "text_completion",
        "choices": [choice(place, generation, tokens) for place, generation in enumerate(generations)],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
        "seed": seed,
    }


def _chat_choice(place: int, generation: "Generation", tokens: TokenTexts) -> Record:
    calls = tool_call_records(generation.tool_calls)
    message: Record = {"role": "assistant", "content": generation.text or (None if calls else "")}
    if generation.thinking:
        message["reasoning_content"] = generation.thinking
    if calls:
        message["tool_calls"] = calls
    return {
        "index": place,
        "message": message,
        "logprobs": {"content": _token_logprobs(generation, tokens)} if generation.logprobs else None,
        "finish_reason": "tool_calls" if calls else generation.finish_reason.value,
    }


def _token_logprobs(generation: "Generation", tokens: TokenTexts) -> list[Record]:
    return [
        {
            **_named(token_id, logprobs.model_logprob, tokens),
            "top_logprobs": [_named(id, value, tokens) for id, value in logprobs.top_model_logprobs],
        }
        for token_id, logprobs in zip(generation.token_ids, generation.logprobs, strict=True)
    ]


def _named(token_id: int, logprob: float, tokens: TokenTexts) -> Record:
    known = tokens.bytes_of(token_id)
    return {
        "token": tokens.text_of(token_id),
        "logprob": finite(logprob),
        "bytes": None if known is None else list(known),
    }


def _by_name(logprobs: Sequence[tuple[int, float]], tokens: TokenTexts) -> Record:
    """Log-probabilities by token text; if two tokens have the same text, the more probable one wins."""
    named: Record = {}
    for id, value in logprobs:
        named.setdefault(tokens.name_of(id), finite(value))
    return named


def _completion_choice(place: int, generation: "Generation", tokens: TokenTexts) -> Record:
    logprobs: Record | None = None
    if generation.logprobs:
        logprobs = {
            "tokens": [tokens.name_of(token_id) for token_id in generation.token_ids],
            "token_logprobs": [finite(each.model_logprob) for each in generation.logprobs],
            "top_logprobs": [_by_name(each.top_model_logprobs, tokens) for each in generation.logprobs],
        }
    choice: Record = {"index": place, "text": generation.text}
    if generation.thinking:
        choice["reasoning_content"] = generation.thinking
    return {**choice, "logprobs": logprobs, "finish_reason": generation.finish_reason.value}
