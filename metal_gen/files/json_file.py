"""Reads JSON from outside, as text or file, with limits on its size, depth and numbers.

Accepted values can be computed with, written again and quoted: no number overflows a float, no text has an
unpaired surrogate, and nothing is nested so deep that later code runs out of stack.
"""

import gc
import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.files.bounded_file import read_bounded
from metal_gen.files.json_words import why_not_json
from metal_gen.files.utf8.decode import NotTextError, decode_utf8

MOST_BYTES = 128 << 20
# Each value takes at least 60 bytes of memory. A tokenizer of 256,000 tokens has 2 million values.
MOST_VALUES = 8_000_000
MOST_LEVELS = 100
# 10^30, which is common, has 31 digits. A float holds 308.
MOST_DIGITS = 100
# It may also be one half of a pair: both halves are written like this.
_HALF_A_PAIR = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class NotJsonError(ValueError):
    """The text is not JSON, or is refused. The message continues after a name: `is not JSON: ...`."""


def parse_json(
    data: bytes | str,
    *,
    unique_names: bool = False,
    half_characters: bool = False,
    is_vocabulary: bool = False,
) -> Any:
    """Return the value of a JSON text.

    Args:
        data: UTF-8, with or without a byte order mark, or decoded text.
        unique_names: Refuse an object that has a name twice; otherwise the last one counts.
        half_characters: Accept texts with unpaired surrogates, which have no UTF-8.
        is_vocabulary: Accept numbers of up to 4,300 digits and any depth that Python reads, because checking
            for them takes a tenth of a second per million values.

    Raises:
        NotJsonError: The text is not JSON, has more than MOST_VALUES values, is nested deeper than
            MOST_LEVELS, or has a number beyond a float's range, NaN, or an unpaired surrogate.
    """
    text = _decode(data)
    # A value takes at least two characters. Counting takes a tenth of the time of parsing.
    if len(text) > 2 * MOST_VALUES and sum(map(text.count, ",[{")) > MOST_VALUES:
        raise NotJsonError(f"is JSON with more than {MOST_VALUES:,} values")
    try:
        with no_collection():
            value = json.loads(
                text,
                parse_int=None if is_vocabulary else _integer,
                parse_float=_float,
                parse_constant=_refuse_constant,
                object_pairs_hook=_unique if unique_names else None,
            )
    except json.JSONDecodeError as error:
        raise NotJsonError(f"is not JSON: {why_not_json(error)}") from None
    except RecursionError:
        raise _too_deep() from None
    except NotJsonError:
        raise
    except ValueError:  # of Python's int
        raise NotJsonError("is JSON with a number of thousands of digits") from None
    if not is_vocabulary:
        _require_shallow(value)
    if not half_characters and _HALF_A_PAIR.search(text):
        _require_whole_characters(value)
    return value


def read_json(path: Path, *, most_bytes: int = MOST_BYTES, is_vocabulary: bool = False) -> dict[str, Any]:
    """Return the object in a JSON file of a checkpoint.

    Args:
        path: Path of the file.
        most_bytes: Maximum size; a larger file is refused before it is read.
        is_vocabulary: Skip the limits that `parse_json` skips for a vocabulary.

    Raises:
        CheckpointError: The file is missing, unreadable, too large, not accepted JSON, or not an object.
    """
    try:
        value = parse_json(read_bounded(path, most_bytes), is_vocabulary=is_vocabulary)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} is not a checkpoint: it has no {path.name}",
            "name a folder in Hugging Face's layout",
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except NotJsonError as error:
        raise CheckpointError(f"{path} {error}", "download or copy the file again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


@contextmanager
def no_collection() -> Iterator[None]:
    """Disable Python's garbage collector.

    Searching half a million new objects for cycles, of which they have none, takes a tenth more time, or
    several times as long.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _decode(data: bytes | str) -> str:
    try:
        if isinstance(data, bytes):
            return decode_utf8(data)
        data.encode()
    except NotTextError as error:
        raise NotJsonError(f"is not JSON: it {error}") from None
    except UnicodeError:
        raise NotJsonError("is not JSON: it is not UTF-8") from None
    return data.removeprefix("\ufeff")


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise NotJsonError(f"is JSON with a number of {len(digits):,} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise NotJsonError(f"is JSON with a number that is too large: {excerpt(digits)}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"is not JSON: {name} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise NotJsonError(f"is JSON with a name that occurs twice: {excerpt(name)}")
        values[name] = value
    return values


def _require_shallow(value: Any) -> None:
    """Check one level after the other, without recursion."""
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [child for parent in level for child in _children(parent) if isinstance(child, (dict, list))]
        if not level:
            return
    raise _too_deep()


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_deep() -> NotJsonError:
    return NotJsonError(f"is JSON nested deeper than {MOST_LEVELS} levels")


def _require_whole_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise NotJsonError("is JSON with an unpaired surrogate") from None
    except RecursionError:
        raise _too_deep() from None
