"""Reads the rows of `metal-gen score --jsonl` and `metal-gen rank --jsonl`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metal_gen.batch.input.kept_fields import kept_fields
from metal_gen.batch.input.reading import ByteSource, parsed_rows
from metal_gen.batch.input.row_json import first_fields, read_object, shown
from metal_gen.batch.input.row_prompt import MESSAGES, PROMPT, Prompt, take_prompt
from metal_gen.batch.input.rows import AnyRow, RowError, RowForm, RowId, id_key, line_key, row_id, unreadable
from metal_gen.config.sources import nearest
from metal_gen.errors import UsageError
from metal_gen.scoring.tasks import Choices, Documents
from metal_gen.text.messages import ASSISTANT, checked_messages, checked_text

TEXT, CHOICES, QUERY, DOCUMENTS = "text", "choices", "query", "documents"
SCORE_FIELDS = (TEXT, PROMPT, MESSAGES)
RANK_FIELDS = (PROMPT, MESSAGES, CHOICES, QUERY, DOCUMENTS)
# Fields that the records themselves define.
RECORD_FIELDS = (
    *("id", "tokens", "logprob", "logprob_per_token", "perplexity", "bytes", "bits_per_byte", "windows"),
    *("token_logprobs", "method", "ranking", "prompt_tokens", "error"),
)
REASONING = ("reasoning_content", "reasoning", "thinking")
Given = dict[str, object]
KEEP_HINT = "--keep-fields copies other fields to the record"


@dataclass(frozen=True, kw_only=True)
class _ScoringRow:
    """What both kinds of rows have; attributes as on `BatchRow`."""

    number: int
    id: RowId | None
    key: str
    carried: dict[str, object]
    form: RowForm = RowForm.NATIVE


@dataclass(frozen=True, kw_only=True)
class ScoreRow(_ScoringRow):
    """A text to score.

    Attributes:
        text: Text whose tokens count.
        prompt: Prompt before it, a text or messages; None if the text stands by itself.
    """

    text: str
    prompt: Prompt | None


@dataclass(frozen=True, kw_only=True)
class RankRow(_ScoringRow):
    """Texts to rank.

    Attributes:
        task: Choices after a prompt, or documents for a query.
    """

    task: Choices | Documents


def read_score_rows(source: ByteSource, *, keep_fields: bool) -> Iterator[ScoreRow | RowError | None]:
    """Read the rows of a source, as `parsed_rows` does."""

    def row(given: Given, start: dict[str, Any]) -> ScoreRow:
        text, prompt = _text_and_prompt(given)
        return ScoreRow(**start, text=text, prompt=prompt)

    return _read(source, SCORE_FIELDS, row, keep_fields=keep_fields)


def read_rank_rows(source: ByteSource, *, keep_fields: bool) -> Iterator[RankRow | RowError | None]:
    """Read the rows of a source, as `parsed_rows` does."""

    def row(given: Given, start: dict[str, Any]) -> RankRow:
        return RankRow(**start, task=_task(given))

    return _read(source, RANK_FIELDS, row, keep_fields=keep_fields)


def _read(
    source: ByteSource,
    known: Sequence[str],
    make: Callable[[Given, dict[str, Any]], AnyRow],
    *,
    keep_fields: bool,
) -> Iterator[AnyRow | RowError | None]:
    """Read rows.

    Args:
        source: JSON Lines.
        known: Names of the fields that a row is made of.
        make: Makes a row of these fields and of what all rows have; raises UsageError.
        keep_fields: Copy other fields to the record rather than refuse them.
    """

    def parse(number: int, line: bytes, form: RowForm) -> AnyRow | RowError:
        return _parsed(number, line, known, make, keep_fields=keep_fields)

    for row in parsed_rows(source, parse):
        # A line that was not read has a record of the only form there is.
        yield replace(row, form=RowForm.NATIVE) if isinstance(row, RowError) else row


def _parsed(
    number: int,
    line: bytes,
    known: Sequence[str],
    make: Callable[[Given, dict[str, Any]], AnyRow],
    *,
    keep_fields: bool,
) -> AnyRow | RowError:
    try:
        fields = read_object(line)
    except UsageError as error:
        given = {name: value for name, value in first_fields(line).items() if name == "id"}
        return unreadable(number, error.message, RowForm.NATIVE, given)
    others = {name: value for name, value in fields.items() if name not in ("id", *known)}
    carried = kept_fields(others, RECORD_FIELDS) if keep_fields else {}
    id, key = None, line_key(number)
    try:
        id = row_id(number, fields, RowForm.NATIVE)
        key = id_key(id)
        if others and not keep_fields:
            name = next(iter(others))
            raise UsageError(
                f"a row has no field {shown(name)}", f"{nearest(name[:40], list(known))}; {KEEP_HINT}"
            )
        given = {name: value for name, value in fields.items() if name in known and value is not None}
        return make(given, {"number": number, "id": id, "key": key, "carried": carried})
    except UsageError as error:
        return RowError(number, id, key, RowForm.NATIVE, error.message, carried, hint=error.hint)


def _text_and_prompt(given: Given) -> tuple[str, Prompt | None]:
    if MESSAGES in given:
        if TEXT in given or PROMPT in given:
            raise UsageError("messages stand alone: the last one is the text")
        return _answer(given[MESSAGES])
    if TEXT not in given:
        raise UsageError("there is neither a text nor messages")
    return _text(TEXT, given[TEXT]), _text(PROMPT, given[PROMPT]) if PROMPT in given else None


def _answer(value: object) -> tuple[str, Prompt]:
    """Part a conversation into its last answer and what comes before it."""
    *before, last = checked_messages(MESSAGES, value)
    if last["role"] != ASSISTANT:
        raise UsageError(f"the last message must be the assistant's, not the {last['role']}'s")
    if any(name in last for name in REASONING):
        raise UsageError(
            "the last message has reasoning, which is not scored",
            "leave it out, or put it at the beginning of the content as the model writes it",
        )
    if not before:
        raise UsageError("there is no message before the answer")
    return _text("the content of the last message", last["content"]), before


def _task(given: Given) -> Choices | Documents:
    if QUERY in given or DOCUMENTS in given:
        if CHOICES in given or PROMPT in given or MESSAGES in given:
            raise UsageError("a row has a query with documents, or a prompt with choices, not both")
        if QUERY not in given:
            raise UsageError("there are documents and no query")
        return Documents(_text(QUERY, given[QUERY]), _texts(DOCUMENTS, given))
    prompt = take_prompt(given)
    return Choices(prompt, _texts(CHOICES, given))


def _texts(name: str, given: Given) -> list[str]:
    if name not in given:
        raise UsageError(f"there are no {name}")
    value = given[name]
    if not isinstance(value, list):
        raise UsageError(f"{name} must be a list of texts")
    if not value:
        raise UsageError(f"{name} is empty")
    return [_text(f"{name[:-1]} {number}", each) for number, each in enumerate(value, 1)]


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a text")
    if not value:
        raise UsageError(f"{name} is empty")
    return checked_text(name, value)
