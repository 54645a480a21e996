"""The rows of a batch: id, prompt and settings, or the reason why a row cannot be run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol, TypeVar

from metal_gen.batch.input.row_json import shown
from metal_gen.batch.input.row_prompt import Prompt
from metal_gen.config.checks import SURROGATES
from metal_gen.errors import UsageError
from metal_gen.excerpt import excerpt

# Limit of a reason and of a hint: text from a template or a file has any length, and every row keeps its own.
MOST_LETTERS = 500

RowId = str | int


class RowForm(StrEnum):
    """The form of a row and of its record."""

    NATIVE = "native"
    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"


class RowErrorCode(StrEnum):
    """The kind of a row's error."""

    INVALID_REQUEST = "invalid_request"
    DUPLICATE_ID = "duplicate_id"
    DOES_NOT_FIT = "does_not_fit"
    GENERATION_FAILED = "generation_failed"
    NO_ANSWER = "no_answer"
    INCOMPLETE = "incomplete"


class Row(Protocol):
    """The attributes that all kinds of rows have; they are as in `BatchRow`."""

    @property
    def number(self) -> int:
        """Number of the line, from 1."""

    @property
    def id(self) -> RowId | None:
        """The id as given, or the number of the line."""

    @property
    def key(self) -> str:
        """The id as a text."""

    @property
    def form(self) -> RowForm:
        """The format of the row."""

    @property
    def carried(self) -> dict[str, object]:
        """Fields to copy to the record."""


AnyRow = TypeVar("AnyRow", bound=Row)


@dataclass(frozen=True)
class BatchRow:
    """A row that can be run.

    Attributes:
        number: Number of the line, from 1.
        id: Id as given; the line number if a native row has none.
        key: The id as a string; 1 and "1" have different keys.
        form: Form of the row.
        prompt: A text, or a conversation of messages.
        settings: Checked values by setting name.
        carried: Fields to copy to the record.
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
    """A row that cannot be run, or whose run failed.

    Attributes:
        number: Number of the line, from 1.
        id: Id of the row; None if none can be read.
        key: Key of the id, as in `BatchRow`; of the line number if the id is missing or not unique.
        form: Form of the record.
        reason: One sentence without a full stop, of bounded length.
        carried: Fields to copy to the record.
        code: Kind of the error.
        hint: What to do about it; may be empty.
        given: Record of the text generated before the failure; empty if there is none.
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
    """Return the form of a row with these fields; a row with its own prompt or messages is native."""
    if "prompt" in fields or "messages" in fields:
        return RowForm.NATIVE
    if not any(name in fields for name in ("custom_id", "url", "body")):
        return RowForm.NATIVE
    return RowForm.COMPLETIONS if fields.get("url") == RowForm.COMPLETIONS else RowForm.CHAT


def row_id(number: int, fields: Mapping[str, object], form: RowForm) -> RowId:
    """Return the id of a row; a native row without one gets its line number.

    Raises:
        UsageError: The id is missing or invalid.
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
    """Return the id as a string that is unique to it."""
    return f"int:{id}" if isinstance(id, int) else f"str:{id}"


def line_key(number: int) -> str:
    """Return the key of a line without an id."""
    return f"line:{number}"


def unreadable(
    number: int, reason: str, form: RowForm = RowForm.NATIVE, fields: Mapping[str, object] | None = None
) -> RowError:
    """Return the error of a line that cannot be read.

    Args:
        number: Number of the line.
        reason: Why the line cannot be read.
        form: Form of the record if the line does not tell.
        fields: The fields that could be read, possibly with the id.
    """
    form = form_of(fields) if fields else form
    name = "id" if form is RowForm.NATIVE else "custom_id"
    try:
        id = row_id(number, fields, form) if fields and fields.get(name) is not None else None
    except UsageError:
        id = None
    return RowError(number, id, line_key(number) if id is None else id_key(id), form, reason, {})


def repeated(row: Row | RowError) -> RowError:
    """Return the error of a row that repeats the id of an earlier one; its key is that of the line."""
    reason = f"an earlier row has the same id {shown(row.id)}"
    if isinstance(row, RowError):
        return replace(row, key=line_key(row.number), reason=reason, code=RowErrorCode.DUPLICATE_ID, hint="")
    return RowError(
        row.number, row.id, line_key(row.number), row.form, reason, row.carried, RowErrorCode.DUPLICATE_ID
    )
