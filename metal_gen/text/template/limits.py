"""Limits on rendering a chat template: time, and memory for the values that it makes."""

import sys
import time
from collections.abc import Iterator
from types import GeneratorType
from typing import Any

from jinja2 import TemplateRuntimeError

MOST_SECONDS = 5.0
MOST_BYTES = 32 * 2**20
# An ordinary template copies each character a few times. One that collects messages copies it once a message.
MOST_BYTES_PER_BYTE = 256
# Approximate bytes of a value in addition to its characters, and of a place in a list.
VALUE_BYTES, PLACE_BYTES = 60, 8
MOST_BITS = 2**16
NESTED: Any = (list, tuple, dict, type({}.keys()), type({}.values()), type({}.items()))


class TemplateLimitError(TemplateRuntimeError):
    """A chat template exceeds a limit."""


class Allowance:
    """The time and memory left for one rendering.

    Time is the thread's own CPU time, so a sleeping or busy machine changes nothing. Memory is the total of
    all values ever made, which is more than exists at once.

    Args:
        given: Values given to the template. The larger they are, the more the template may make.
    """

    def __init__(self, given: object = ()) -> None:
        self._end_s = time.thread_time() + MOST_SECONDS
        self._most_bytes = MOST_BYTES + MOST_BYTES_PER_BYTE * _nbytes(given, sys.maxsize)
        self._left_bytes = self._most_bytes

    def check(self) -> None:
        """Raise `TemplateLimitError` if the time is over."""
        if time.thread_time() > self._end_s:
            raise TemplateLimitError(f"it takes more than {MOST_SECONDS:g} seconds")

    def reserve(self, nbytes: int) -> None:
        """Refuse a value that is about to be made if there is no room for it."""
        if nbytes > self._left_bytes:
            raise TemplateLimitError(
                f"it makes more than {self._most_bytes // 2**20:,} MiB of text and lists"
            )

    def require_digits(self, bits: int) -> None:
        """Refuse a number with too many bits."""
        if bits > MOST_BITS:
            raise TemplateLimitError("it computes with numbers of thousands of digits")

    def charge(self, nbytes: int) -> None:
        """Count the bytes of a value that was made."""
        self.check()
        self.reserve(nbytes)
        self._left_bytes -= nbytes

    def take(self, value: Any) -> Any:
        """Count a value that the template has made, and return it."""
        if isinstance(value, GeneratorType):
            return self._counted(value)
        nbytes = VALUE_BYTES
        if isinstance(value, str):
            nbytes += len(value)
        elif isinstance(value, NESTED):
            nbytes += PLACE_BYTES * len(value)
        elif isinstance(value, int):
            self.require_digits(value.bit_length())
        self.charge(nbytes)
        return value

    def take_whole(self, value: Any) -> Any:
        """Count a value that may contain others in a new way, and return it.

        A small list can contain another so many times that writing, comparing or hashing it never ends.
        """
        if isinstance(value, NESTED):
            self.reserve(self.weigh(value))
        return self.take(value)

    def weigh(self, value: object) -> int:
        """Return the bytes of a value with everything in it, each part as often as it occurs."""
        return _nbytes(value, self._most_bytes)

    def _counted(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.charge(PLACE_BYTES)
            yield value


def _nbytes(value: Any, most: int) -> int:
    """Count the bytes of a value, until they certainly exceed `most`."""
    nbytes, parts = 0, [value]
    while parts and nbytes <= most:
        part = parts.pop()
        if isinstance(part, str):
            nbytes += len(part)
        elif isinstance(part, NESTED):
            nbytes += VALUE_BYTES * len(part)
            if nbytes <= most:
                parts.extend(part)
            if isinstance(part, dict) and nbytes <= most:
                parts.extend(part.values())
    return nbytes
