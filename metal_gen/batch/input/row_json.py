"""Reads the JSON object in a line, and describes values in JSON's terms."""

import json
import re

from metal_gen.config.checks import SURROGATES
from metal_gen.errors import UsageError
from metal_gen.excerpt import excerpt
from metal_gen.files.json_file import NotJsonError, parse_json

MOST_SHOWN = 60
BYTE_ORDER_MARK = "\ufeff"
BEFORE_NAME, BEFORE_VALUE, AFTER_VALUE = (re.compile(rf"\s*[{mark}]\s*") for mark in ("{,", ":", ",}"))


def read_object(line: bytes) -> dict[str, object]:
    """Return the object in a line.

    Args:
        line: Bytes without the newline, with or without a byte order mark.

    Raises:
        UsageError: The line is not UTF-8, JSON or an object, or a value in it cannot be written again.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the line is not UTF-8: byte {error.start} is 0x{line[error.start]:02x}") from None
    try:
        value = parse_json(text, unique_names=True, half_characters=True)
    except NotJsonError as error:
        raise UsageError(f"the line {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"the line must be a JSON object, not {_kind(value)}")
    return value


def first_fields(beginning: bytes) -> dict[str, object]:
    """Return the leading fields of an object that is cut off or damaged further on."""
    text = beginning.decode(errors="surrogateescape").removeprefix(BYTE_ORDER_MARK)
    decoder, place = json.JSONDecoder(), 0
    fields: dict[str, object] = {}
    try:
        while start := BEFORE_NAME.match(text, place):
            name, place = decoder.raw_decode(text, start.end())
            colon = BEFORE_VALUE.match(text, place)
            if colon is None or not isinstance(name, str):
                break
            value, place = decoder.raw_decode(text, colon.end())
            # A value without a following delimiter may itself be cut off.
            if AFTER_VALUE.match(text, place):
                fields.setdefault(name, value)
    except (ValueError, RecursionError):
        pass
    return fields


def shown(value: object) -> str:
    """Return a value as JSON, shortened for a message."""
    try:
        text = json.dumps(value, ensure_ascii=isinstance(value, str) and bool(SURROGATES.search(value)))
    except (ValueError, RecursionError):
        return "a value that is too long or too deep"
    return excerpt(text, MOST_SHOWN)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return kinds[type(value)]
