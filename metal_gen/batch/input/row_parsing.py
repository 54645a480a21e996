"""Parses a line into a row.

There are three forms: metal-gen's own, and OpenAI's batch requests for chats and for completions.
"""

from metal_gen.batch.input.kept_fields import kept_fields
from metal_gen.batch.input.row_json import first_fields, read_object, shown
from metal_gen.batch.input.row_prompt import MESSAGES, PROMPT, Prompt, checked_prompt, take_prompt
from metal_gen.batch.input.row_settings import ROW_NAMES, request_settings, row_settings
from metal_gen.batch.input.rows import (
    BatchRow,
    RowError,
    RowForm,
    form_of,
    id_key,
    line_key,
    row_id,
    unreadable,
)
from metal_gen.config.sources import nearest
from metal_gen.errors import UsageError

ENVELOPE = ["custom_id", "method", "url", "body"]
# Maximum number of a row's fields that a hint names.
MOST_NAMES = 20


def parse_row(
    number: int,
    line: bytes,
    *,
    field: str | None = None,
    keep_fields: bool = False,
    form: RowForm = RowForm.NATIVE,
) -> BatchRow | RowError:
    """Parse a row.

    Args:
        number: Number of the line, from 1.
        line: Bytes of the line without the newline.
        field: Take the prompt from this field and copy all others to the record; no field is a setting then.
        keep_fields: Copy the fields that are neither prompt nor setting to the record.
        form: Form of the record if the line cannot be read.
    """
    try:
        row = read_object(line)
    except UsageError as error:
        return unreadable(number, error.message, form, first_fields(line))
    form = RowForm.NATIVE if field is not None else form_of(row)
    carried: dict[str, object] = {}
    others: dict[str, object] = {}
    if field is not None:
        row, others = _split(row, ("id", field))
        carried = kept_fields(others)
    elif keep_fields and form is RowForm.NATIVE:
        row, others = _split(row, ("id", PROMPT, MESSAGES, *ROW_NAMES))
        carried = kept_fields(others)
    key = line_key(number)
    id = None
    try:
        id = row_id(number, row, form)
        key = id_key(id)
        prompt, settings = _contents(row, form) if field is None else (_field_prompt(row, field, others), {})
    except UsageError as error:
        return RowError(number, id, key, form, error.message, carried, hint=error.hint)
    return BatchRow(number, id, key, form, prompt, settings, carried)


def _split(row: dict[str, object], names: tuple[str, ...]) -> tuple[dict[str, object], dict[str, object]]:
    """Split a row into the fields with these names and the others."""
    known = {name: value for name, value in row.items() if name in names}
    return known, {name: value for name, value in row.items() if name not in known}


def _contents(row: dict[str, object], form: RowForm) -> tuple[Prompt, dict[str, object]]:
    if form is RowForm.NATIVE:
        given = {name: value for name, value in row.items() if value is not None and name != "id"}
        if PROMPT not in given and MESSAGES not in given and (text := _longest_text(given)):
            raise UsageError(
                "there is neither a prompt nor messages", f"--field {shown(text)} takes the prompt from there"
            )
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
            raise UsageError(f"a request has no field {shown(name)} next to its body", hint)
    if row.get("method", "POST") != "POST":
        raise UsageError(f"method must be POST, not {shown(row['method'])}")
    if row.get("url") not in (RowForm.CHAT.value, RowForm.COMPLETIONS.value):
        raise UsageError(f"url must be {RowForm.CHAT} or {RowForm.COMPLETIONS}, not {shown(row.get('url'))}")
    body = row.get("body")
    if not isinstance(body, dict):
        raise UsageError("body must be an object")
    return {name: value for name, value in body.items() if value is not None}


def _longest_text(fields: dict[str, object]) -> str | None:
    """Return the name of the field with the longest text; None if no field is a text."""
    sizes = {name: len(value) for name, value in fields.items() if isinstance(value, str)}
    return max(sizes, key=sizes.__getitem__, default=None)


def _field_prompt(row: dict[str, object], field: str, others: dict[str, object]) -> Prompt:
    if row.get(field) is None:
        names = [shown(name) for name in list(others)[:MOST_NAMES]]
        raise UsageError(f"there is no field {shown(field)}", nearest(shown(field), names) if names else "")
    return checked_prompt(field, row[field])
