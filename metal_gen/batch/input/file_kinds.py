"""Recognizes other formats given instead of JSON Lines, and names a command that converts them.

Only the first line decides, so that a pipe and a file are treated alike.
"""

import codecs
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from metal_gen.errors import UsageError

# First bytes, description, and a command that reads the format; `{}` stands for the file's name.
MARKS = (
    (b"\x1f\x8b", "compressed with gzip", "gzip -dc"),
    (b"BZh", "compressed with bzip2", "bzip2 -dc"),
    (b"\xfd7zXZ\0", "compressed with xz", "xz -dc"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -dc"),
    (b"PK\x03\x04", "a zip archive", "unzip -p {}"),
    (
        b"PAR1",
        "a Parquet file",
        "python3 -c 'import pandas, sys; "
        'pandas.read_parquet(sys.argv[1]).to_json(sys.stdout, orient="records", lines=True)\' {}',
    ),
    (codecs.BOM_UTF32_LE, "UTF-32", "iconv -f UTF-32 -t UTF-8"),
    (codecs.BOM_UTF32_BE, "UTF-32", "iconv -f UTF-32 -t UTF-8"),
    (codecs.BOM_UTF16_LE, "UTF-16", "iconv -f UTF-16 -t UTF-8"),
    (codecs.BOM_UTF16_BE, "UTF-16", "iconv -f UTF-16 -t UTF-8"),
    (b"{\0", "UTF-16", "iconv -f UTF-16LE -t UTF-8"),
    (b"\0{", "UTF-16", "iconv -f UTF-16BE -t UTF-8"),
)
READ_CSV = (
    "python3 -c 'import csv, json; "
    '[print(json.dumps(row)) for row in csv.DictReader(open(0, encoding="utf-8-sig", newline=""){})]\''
)
DELIMITERS = {",": "", "\t": ', delimiter="\\t"', ";": ', delimiter=";"'}
# A column name. The parts of a sentence between commas contain spaces and do not match.
COLUMN = re.compile(r'"?[\w.-]{1,40}"?')


# By command, the field of a row that a text of one line becomes.
FIELDS = {"batch": "prompt", "score": "text"}


@dataclass(frozen=True)
class _Kind:
    """A format: a phrase that completes "NAME is", and a command that converts it to JSON Lines."""

    what: str
    command: str = ""


def require_json_lines(name: str | None, beginning: bytes, command: str = "batch") -> None:
    """Check that an input can be JSON Lines.

    Args:
        name: Name of the file; None for standard input.
        beginning: At least the first line that is not blank, or all of it that has been read.
        command: Name of the command that reads the rows.

    Raises:
        UsageError: The input has another format; the hint has a command that converts it.
    """
    kind = _kind_by_mark(beginning) or _kind_by_line(name or "", beginning, FIELDS.get(command))
    if kind is None:
        return
    what = "standard input" if name is None else name
    raise UsageError(f"{what} is {kind.what}, not JSON Lines", _hint(name, kind.command, command))


def _kind_by_mark(beginning: bytes) -> _Kind | None:
    for mark, what, command in MARKS:
        if beginning.startswith(mark):
            return _Kind(what, command)
    return None


def _kind_by_line(name: str, beginning: bytes, field: str | None) -> _Kind | None:
    text = beginning.decode("utf-8-sig", "replace").lstrip()
    line = text.partition("\n")[0].rstrip()
    if line == "{":
        return _Kind("JSON over several lines", "jq -c .")
    if not line or line.startswith("{"):
        return None
    if "\0" in line:
        return _Kind("a binary file")
    if line.startswith("["):
        return _Kind("a JSON array", "jq -c '.[]'")
    if (delimiter := _delimiter(name, line)) is not None:
        return _Kind("CSV", READ_CSV.format(DELIMITERS[delimiter]))
    if line.startswith('"') and line.endswith('"'):
        return _Kind("a JSON text in each line", f"jq -c '{{{field}: .}}'" if field else "")
    return _Kind("plain text", f"jq -cR 'select(length > 0) | {{{field}: .}}'" if field else "")


def _delimiter(name: str, line: str) -> str | None:
    """Return the delimiter between columns; None if the line is not a row of columns."""
    delimiter = max(DELIMITERS, key=line.count)
    if name.lower().endswith((".csv", ".tsv")):
        return delimiter
    cells = line.split(delimiter)
    return delimiter if len(cells) > 1 and all(COLUMN.fullmatch(cell.strip()) for cell in cells) else None


def _hint(name: str | None, call: str, command: str) -> str:
    if not call:
        return "a row is a JSON object on a line of its own"
    if name is None:
        return "" if "{}" in call else f"make JSON Lines of it: ... | {call} | metal-gen {command} - ..."
    target = Path(name).with_suffix("")
    if target.suffix != ".jsonl":
        target = Path(name).with_suffix(".rows.jsonl" if name.endswith(".jsonl") else ".jsonl")
    reads = "" if "{}" in call else f" < {shlex.quote(name)}"
    call = call.replace("{}", shlex.quote(name))
    return f"make JSON Lines of it: {call}{reads} > {shlex.quote(str(target))}"
