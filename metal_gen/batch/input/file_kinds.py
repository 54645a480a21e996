"""Recognizes other formats given instead of JSON Lines, and names a command that converts them.

Only the first line decides, so that a pipe and a file are treated alike.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from metal_gen.errors import UsageError
from metal_gen.files.utf8.other_formats import format_of

READ_CSV = (
    "python3 -c 'import csv, json; "
    '[print(json.dumps(row)) for row in csv.DictReader(open(0, encoding="utf-8-sig", newline=""){})]\''
)
DELIMITERS = {",": "", "\t": ', delimiter="\\t"', ";": ', delimiter=";"'}
# A column name. The parts of a sentence between commas contain spaces and do not match.
COLUMN = re.compile(r'"?[\w.-]{1,40}"?')


# Programs that have these files write CSV too.
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
# By command, the field of a row that a text of one line becomes.
FIELDS = {"batch": "prompt", "score": "text"}


@dataclass(frozen=True)
class _Kind:
    """A format: a phrase that completes "NAME is", and a command that converts it to JSON Lines.

    Without a command, the advice is the hint.
    """

    what: str
    command: str = ""
    advice: str = "a row is a JSON object on a line of its own"


def require_json_lines(name: str | None, beginning: bytes, command: str = "batch") -> None:
    """Check that an input can be JSON Lines.

    Args:
        name: Name of the file; None for standard input.
        beginning: At least the first line that is not blank, or all of it that has been read.
        command: Name of the command that reads the rows.

    Raises:
        UsageError: The input has another format; the hint has a command that converts it.
    """
    field = FIELDS.get(command)
    kind = (
        _spreadsheet(name or "", beginning)
        or _kind_by_mark(beginning, field)
        or _kind_by_line(name or "", beginning, field)
    )
    if kind is None:
        return
    what = "standard input" if name is None else name
    raise UsageError(f"{what} is {kind.what}, not JSON Lines", _hint(name, kind, command))


def _spreadsheet(name: str, beginning: bytes) -> _Kind | None:
    """Recognize a spreadsheet by its name, because its first bytes are those of any Office document."""
    if not name.lower().endswith(SPREADSHEETS) or b"\0" not in beginning:
        return None
    return _Kind("a spreadsheet", advice="save it as CSV: metal-gen then says how to make JSON Lines of it")


def _kind_by_mark(beginning: bytes, field: str | None) -> _Kind | None:
    format = format_of(beginning)
    if format is None:
        return None
    if not format.is_document:
        return _Kind(format.what, format.command)
    rows = _rows_of_lines(field)
    return _Kind(format.what, f"{format.command} | {rows}" if rows else "")


def _kind_by_line(name: str, beginning: bytes, field: str | None) -> _Kind | None:
    text = beginning.decode("utf-8-sig", "replace").lstrip()
    line = text.partition("\n")[0].rstrip()
    if line == "{":
        return _Kind("JSON over several lines", "jq -c .")
    if not line or line.startswith("{"):
        return None
    if b"\0" in beginning:
        return _Kind("a binary file")
    if line.startswith("["):
        return _Kind("a JSON array", "jq -c '.[]'")
    if (delimiter := _delimiter(name, line)) is not None:
        return _Kind("CSV", READ_CSV.format(DELIMITERS[delimiter]))
    if line.startswith('"') and line.endswith('"'):
        return _Kind("a JSON text in each line", f"jq -c '{{{field}: .}}'" if field else "")
    return _Kind("plain text", _rows_of_lines(field))


def _rows_of_lines(field: str | None) -> str:
    """Return a command that makes a row of each line of a text; empty if a row has more than a text."""
    return f"jq -cR 'select(length > 0) | {{{field}: .}}'" if field else ""


def _delimiter(name: str, line: str) -> str | None:
    """Return the delimiter between columns; None if the line is not a row of columns."""
    delimiter = max(DELIMITERS, key=line.count)
    if name.lower().endswith((".csv", ".tsv")):
        return delimiter
    cells = line.split(delimiter)
    return delimiter if len(cells) > 1 and all(COLUMN.fullmatch(cell.strip()) for cell in cells) else None


def _hint(name: str | None, kind: _Kind, command: str) -> str:
    call = kind.command
    if not call:
        return kind.advice
    if name is None:
        return "" if "{}" in call else f"make JSON Lines of it: ... | {call} | metal-gen {command} - ..."
    target = Path(name).with_suffix("")
    if target.suffix != ".jsonl":
        target = Path(name).with_suffix(".rows.jsonl" if name.endswith(".jsonl") else ".jsonl")
    reads = "" if "{}" in call else f" < {shlex.quote(name)}"
    call = call.replace("{}", shlex.quote(name))
    return f"make JSON Lines of it: {call}{reads} > {shlex.quote(str(target))}"
