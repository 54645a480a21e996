"""The settings that constrain a text: a schema, a regular expression, a grammar.

Only options, variables and settings files may name files. A value from a program or a row of a batch is
content, never a file's name. Whether a constraint can be kept to is checked in `constraints/`.
"""

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from metal_gen.config.checks import SURROGATES, Check, RefusedError, Texts
from metal_gen.config.constraints.short_schema import expand_short_schema
from metal_gen.files.json_file import NotJsonError, parse_json
from metal_gen.files.missing_file import how_to_read
from metal_gen.files.utf8.decode import NotTextError, decode_utf8, require_text

CONSTRAINTS = ("schema", "regex", "choice", "grammar")
MOST_BYTES = 262_144
LONGEST_NAME = 4096
FILE_NAME = re.compile(r"[\w./~-]+")
TOPIC = "structured-output"


@dataclass(frozen=True)
class Source(Check):
    """A text of limited size, of more than blanks unless these mean something."""

    topic: ClassVar[str] = TOPIC

    what: str
    may_be_blank: bool = False

    def __call__(self, value: object) -> str:
        """Accept a str that is not empty."""
        if not isinstance(value, str) or SURROGATES.search(value):
            raise ValueError(f"must be {self}")
        if not (value if self.may_be_blank else value.strip()):
            raise ValueError(f"must be {self}")
        if len(value.encode()) > MOST_BYTES:
            raise ValueError(f"must have at most {MOST_BYTES // 1024} KiB")
        return value

    def from_text(self, text: str) -> str:
        """Take the text unchanged."""
        return self(text)

    def from_file_value(self, value: object) -> str:
        """Take a text as an option does; a schema may be a table."""
        return self.from_text(value) if isinstance(value, str) else self(value)

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class Choices(Texts):
    """A list of at least one text, none of them empty."""

    topic: ClassVar[str] = TOPIC

    def __call__(self, value: object) -> tuple[str, ...]:
        """Accept a list or tuple of str."""
        texts = super().__call__(value)
        if not texts:
            raise ValueError("must have at least one text")
        if sum(map(len, texts)) > MOST_BYTES:
            raise ValueError(f"must have at most {MOST_BYTES // 1024} KiB")
        return texts


@dataclass(frozen=True)
class Grammar(Source):
    """A Lark grammar, as text or in a file."""

    what: str = "a Lark grammar"

    def from_text(self, text: str) -> str:
        """Read a file; a text with several lines is the grammar itself."""
        return self(text if "\n" in text.strip() else read_named_file(text))


@dataclass(frozen=True)
class Schema(Source):
    """A JSON Schema, kept as JSON text."""

    what: str = "a JSON Schema: an object, or fields such as name, age int"

    def __call__(self, value: object) -> str:
        """Accept an object, or its JSON, or the short form."""
        if isinstance(value, str):
            text = super().__call__(value)
            value = parse_schema(text) if _is_json(text) else expand_short_schema(text)
        if value is True:
            value = {}
        if not isinstance(value, Mapping):
            raise ValueError(f"must be {self}")
        try:
            written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise ValueError("must be a JSON Schema that can be written as JSON") from None
        return super().__call__(written)

    def from_text(self, text: str) -> str:
        """Parse JSON, otherwise read a file of this name, otherwise parse the short form."""
        given = text.strip()
        if given.startswith("{") or "\n" in given:
            return self(given)
        if _is_there(given) or given.endswith(".json") or "/" in given:
            return self(parse_schema(read_named_file(given)))
        return self(given)


def parse_schema(text: str) -> object:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return parse_json(text, unique_names=True)
    except NotJsonError as error:
        raise ValueError(str(error)) from None


def _is_json(text: str) -> bool:
    """Return whether a text can only be meant as JSON, and not as names of fields."""
    given = text.strip()
    return given.startswith(("{", "[", '"')) or given in ("true", "false", "null")


def _is_there(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and "\0" not in name and os.path.exists(name)  # noqa: PTH110


def read_named_file(name: str) -> str:
    """Read a file, or a pipe that a shell has created."""
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise ValueError("cannot be read: there is no home folder") from None
    try:
        mode = path.stat().st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise ValueError("names a device")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        if not FILE_NAME.fullmatch(name):  # Perhaps the text itself was meant.
            raise ValueError(problem) from None
        raise RefusedError(problem, how_to_read(error, path)) from None
    try:
        require_text(data)
        if len(data) > MOST_BYTES:
            raise ValueError(f"must have at most {MOST_BYTES // 1024} KiB")
        if not data.strip():
            raise ValueError("is empty")
        return decode_utf8(data)
    except NotTextError as error:
        raise RefusedError(str(error), error.hint(name)) from None
