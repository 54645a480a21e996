"""A row of a batch: its id, what it asks, and the settings that it gives for itself.

Three forms: this program's own, and OpenAI's batch requests for chats and for completions.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from metal_gen.batch.input.row_json import read_object
from metal_gen.batch.input.row_prompt import Prompt, checked_prompt, take_prompt
from metal_gen.batch.input.row_settings import request_settings, row_settings
from metal_gen.config.checks import SURROGATES
from metal_gen.config.sources import nearest
from metal_gen.errors import UsageError

ENVELOPE = ["custom_id", "method", "url", "body"]
# What a record of the output says itself; a field that is handed on cannot have one of these names.
OUTPUT_FIELDS = (
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

RowId = str | int


class RowForm(StrEnum):
    """How a row is written, and its record too."""

    NATIVE = "native"
    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"


class RowErrorCode(StrEnum):
    """What kind of error a row has."""

    INVALID_REQUEST = "invalid_request"
    DUPLICATE_ID = "duplicate_id"
    GENERATION_FAILED = "generation_failed"


@dataclass(frozen=True)
class BatchRow:
    """A row that can be run.

    Attributes:
        number: Of its line, from 1.
        id: As given; the line's number where a row of the native form gives none.
        key: The id as a text; 1 and "1" differ.
        form: How it is written.
        prompt: A text, or a conversation of messages.
        settings: Checked values by the name of the setting.
        carried: Fields to hand on to the record.
    """

    number: int
    id: RowId | None
    key: str
    form: RowForm
    prompt: Prompt
    settings: dict[str, object]
    carried: dict[str, object]


@dataclass(frozen=True)
class RowError:
    """A row that cannot be run, or could not.

    Attributes:
        number: Of its line, from 1.
        id: None where the line has none that can be read.
        key: As a row's; of the line where there is no id, or not one of its own.
        form: How its record is to be written.
        reason: One sentence without a full stop.
        carried: Fields to hand on to the record.
        code: What kind of error it is.
    """

    number: int
    id: RowId | None
    key: str
    form: RowForm
    reason: str
    carried: dict[str, object]
    code: RowErrorCode = RowErrorCode.INVALID_REQUEST


def id_key(id: RowId) -> str:
    """The id as a text that no other id has."""
    return f"int:{id}" if isinstance(id, int) else f"str:{id}"


def line_key(number: int) -> str:
    """Stands for the id of a line that has none of its own."""
    return f"line:{number}"


def unreadable(number: int, reason: str, form: RowForm = RowForm.NATIVE) -> RowError:
    """The error of a line of which not even the id is known."""
    return RowError(number, None, line_key(number), form, reason, {})


def repeated(row: BatchRow | RowError) -> RowError:
    """The error of a row whose id stands in an earlier one; its key is the line's."""
    reason = f"the id {_shown(row.id)} stands in an earlier row too"
    if isinstance(row, RowError):
        return replace(row, key=line_key(row.number), reason=reason, code=RowErrorCode.DUPLICATE_ID)
    return RowError(
        row.number, row.id, line_key(row.number), row.form, reason, row.carried, RowErrorCode.DUPLICATE_ID
    )


def parse_row(
    number: int, line: bytes, *, field: str | None = None, form: RowForm = RowForm.NATIVE
) -> BatchRow | RowError:
    """Read a row.

    Args:
        number: Of the line, from 1.
        line: Bytes without the newline.
        field: Take the prompt from here and hand all other fields on; none of them is a setting.
        form: Of the record, if the line cannot be read.
    """
    try:
        row = read_object(line, is_first=number == 1)
    except UsageError as error:
        return unreadable(number, _reason(error), form)
    form = RowForm.NATIVE if field is not None else _form(row)
    carried: dict[str, object] = {}
    if field is not None:
        carried = {k: v for k, v in row.items() if k not in ("id", field, *OUTPUT_FIELDS)}
    try:
        id = _row_id(number, row, form)
    except UsageError as error:
        return RowError(number, None, line_key(number), form, _reason(error), carried)
    try:
        prompt, settings = _contents(row, form) if field is None else (_field_prompt(row, field), {})
    except UsageError as error:
        return RowError(number, id, id_key(id), form, _reason(error), carried)
    return BatchRow(number, id, id_key(id), form, prompt, settings, carried)


def _form(row: dict[str, object]) -> RowForm:
    if not any(name in row for name in ("custom_id", "url", "body")):
        return RowForm.NATIVE
    return RowForm.COMPLETIONS if row.get("url") == RowForm.COMPLETIONS else RowForm.CHAT


def _row_id(number: int, row: dict[str, object], form: RowForm) -> RowId:
    name = "id" if form is RowForm.NATIVE else "custom_id"
    id = row.get(name)
    if id is None:
        if form is RowForm.NATIVE:
            return number
        raise UsageError("there is no custom_id")
    if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
        raise UsageError(f"{name} must be a text that is not empty or a whole number: {_shown(id)}")
    if isinstance(id, str) and SURROGATES.search(id):
        raise UsageError(f"{name} contains an unpaired surrogate: {_shown(id)}")
    return id


def _contents(row: dict[str, object], form: RowForm) -> tuple[Prompt, dict[str, object]]:
    if form is RowForm.NATIVE:
        given = {name: value for name, value in row.items() if value is not None and name != "id"}
        return take_prompt(given), row_settings(given)
    body = _request_body(row)
    prompt = take_prompt(body)
    if isinstance(prompt, str) is not (form is RowForm.COMPLETIONS):
        wanted, found = ("a prompt", "messages") if form is RowForm.COMPLETIONS else ("messages", "a prompt")
        raise UsageError(f"a request to {form} has {wanted}, not {found}")
    settings = request_settings(body)
    if form is RowForm.COMPLETIONS:
        settings.setdefault("raw", True)
    return prompt, settings


def _request_body(row: dict[str, object]) -> dict[str, object]:
    for name in row:
        if name not in ENVELOPE:
            hint = nearest(name[:40], ENVELOPE)
            raise UsageError(f"a request has no {_shown(name)} beside its body", hint)
    if row.get("method", "POST") != "POST":
        raise UsageError(f"method must be POST: {_shown(row['method'])}")
    if row.get("url") not in (RowForm.CHAT.value, RowForm.COMPLETIONS.value):
        raise UsageError(f"url must be {RowForm.CHAT} or {RowForm.COMPLETIONS}: {_shown(row.get('url'))}")
    body = row.get("body")
    if not isinstance(body, dict):
        raise UsageError("body must be an object")
    return {name: value for name, value in body.items() if value is not None}


def _field_prompt(row: dict[str, object], field: str) -> Prompt:
    if row.get(field) is None:
        raise UsageError(f"there is no field {_shown(field)}")
    for name in OUTPUT_FIELDS:
        if name in row and name != field:
            raise UsageError(f"the field {name} cannot be handed on: the output has its own", "rename it")
    return checked_prompt(field, row[field])


def _reason(error: UsageError) -> str:
    return f"{error.message}: {error.hint}" if error.hint else error.message


def _shown(value: object) -> str:
    try:
        text = ascii(value) if isinstance(value, str) and SURROGATES.search(value) else repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
