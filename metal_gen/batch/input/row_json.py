"""Reads the JSON object in a line, and nothing that JSON in and JSON out would not keep."""

import json
import math
from typing import Any, NoReturn

from metal_gen.errors import UsageError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What is read is written again, perhaps from a deeper stack: far below what the interpreter allows.
DEEPEST = 100


def read_object(line: bytes, *, is_first: bool = False) -> dict[str, object]:
    """Return the object in a line.

    Args:
        line: Bytes without the newline.
        is_first: A byte order mark may come before it.

    Raises:
        UsageError: It is not UTF-8, not JSON, not an object, or holds what cannot be written again.
    """
    try:
        text = (line.removeprefix(BYTE_ORDER_MARK) if is_first else line).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the line is not UTF-8: byte {error.start} is 0x{line[error.start]:02x}") from None
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as error:
        raise UsageError(f"the line is not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise UsageError("the line has a number of thousands of digits") from None
    if not isinstance(value, dict):
        raise UsageError(f"the line must be a JSON object, not {_kind(value)}")
    _require_shallow(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise UsageError(f"the line has {name}, which is not a number in JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise UsageError(f"the line has a number that is too large: {digits[:40]}")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in pairs:
        if name in row:
            raise UsageError(f"an object in the line has {name[:40]!a} twice")
        row[name] = value
    return row


def _require_shallow(value: object) -> None:
    level: list[object] = [value]
    for _ in range(DEEPEST):
        children: list[object] = []
        for parent in level:
            if isinstance(parent, dict):
                children.extend(parent.values())
            elif isinstance(parent, list):
                children.extend(parent)
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> UsageError:
    return UsageError(f"the line is nested too deeply: at most {DEEPEST} levels are read")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return kinds[type(value)]
