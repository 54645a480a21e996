"""A row of a batch: its id, what it asks, and the settings it gives for itself; or why it cannot be run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from metal_gen.batch.input.row_json import shown
from metal_gen.batch.input.row_prompt import Prompt
from metal_gen.config.checks import SURROGATES
from metal_gen.errors import UsageError
from metal_gen.excerpt import excerpt

# Of a reason and of a hint: what a template or a file says may have any length, and each row's is kept.
MOST_LETTERS = 500

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
    DOES_NOT_FIT = "does_not_fit"
    GENERATION_FAILED = "generation_failed"
    NO_ANSWER = "no_answer"


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
        reason: One sentence without a full stop, of bounded length.
        carried: Fields to hand on to the record.
        code: What kind of error it is.
        hint: What to do about it; may be empty.
        given: The record of what was generated all the same; empty where nothing was.
    """

    number: int
    id: RowId | None
    key: str
    form: RowForm
    reason: str
    carried: dict[str, object]
    code: RowErrorCode = RowErrorCode.INVALID_REQUEST
    hint: str = ""
    given: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", excerpt(self.reason, MOST_LETTERS))
        object.__setattr__(self, "hint", excerpt(self.hint, MOST_LETTERS))


def form_of(fields: Mapping[str, object]) -> RowForm:
    """How a row with these fields is written; what asks something by itself is no request."""
    if "prompt" in fields or "messages" in fields:
        return RowForm.NATIVE
    if not any(name in fields for name in ("custom_id", "url", "body")):
        return RowForm.NATIVE
    return RowForm.COMPLETIONS if fields.get("url") == RowForm.COMPLETIONS else RowForm.CHAT


def row_id(number: int, fields: Mapping[str, object], form: RowForm) -> RowId:
    """The id of a row; of one of the native form that gives none the number of its line.

    Raises:
        UsageError: There is none, or it cannot be one.
    """
    name = "id" if form is RowForm.NATIVE else "custom_id"
    id = fields.get(name)
    if id is None:
        if form is RowForm.NATIVE:
            return number
        raise UsageError("there is no custom_id")
    if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
        raise UsageError(f"{name} must be a text that is not empty or a whole number: {shown(id)}")
    if isinstance(id, str) and SURROGATES.search(id):
        raise UsageError(f"{name} contains an unpaired surrogate: {shown(id)}")
    return id


def id_key(id: RowId) -> str:
    """The id as a text that no other id has."""
    return f"int:{id}" if isinstance(id, int) else f"str:{id}"


def line_key(number: int) -> str:
    """Stands for the id of a line that has none of its own."""
    return f"line:{number}"


def unreadable(
    number: int, reason: str, form: RowForm = RowForm.NATIVE, fields: Mapping[str, object] | None = None
) -> RowError:
    """The error of a line that cannot be read.

    Args:
        number: Of the line.
        reason: Why not.
        form: Of its record, where nothing of the line tells.
        fields: Those that could be read, among them perhaps the id.
    """
    form = form_of(fields) if fields else form
    name = "id" if form is RowForm.NATIVE else "custom_id"
    try:
        id = row_id(number, fields, form) if fields and fields.get(name) is not None else None
    except UsageError:
        id = None
    return RowError(number, id, line_key(number) if id is None else id_key(id), form, reason, {})


def repeated(row: BatchRow | RowError) -> RowError:
    """The error of a row whose id stands in an earlier one; its key is the line's."""
    reason = f"the id {shown(row.id)} is in an earlier row too"
    if isinstance(row, RowError):
        return replace(row, key=line_key(row.number), reason=reason, code=RowErrorCode.DUPLICATE_ID, hint="")
    return RowError(
        row.number, row.id, line_key(row.number), row.form, reason, row.carried, RowErrorCode.DUPLICATE_ID
    )
