"""What the rendering of a chat template may take: time, and memory for what it makes."""

import sys
import time
from collections.abc import Iterator
from types import GeneratorType
from typing import Any

from jinja2 import TemplateRuntimeError

MOST_SECONDS = 5.0
MOST_BYTES = 32 * 2**20
# An ordinary template copies each character a few times; one that gathers messages, once for each of them.
MOST_BYTES_PER_BYTE = 256
# Of a value beside its characters, about; and of a place in a list.
VALUE_BYTES, PLACE_BYTES = 60, 8
MOST_BITS = 2**16
NESTED: Any = (list, tuple, dict, type({}.keys()), type({}.values()), type({}.items()))


class TemplateLimitError(TemplateRuntimeError):
    """A chat template takes more than it may."""


class Allowance:
    """What is left of the time and the memory of one rendering.

    Time is that of the thread's own work: a machine that sleeps or is busy changes nothing. Memory is that
    of all values ever made, which is more than there are at once.

    Args:
        given: What the template is given; the more that is, the more it may make.
    """

    def __init__(self, given: object = ()) -> None:
        self._end_s = time.thread_time() + MOST_SECONDS
        self._most_bytes = MOST_BYTES + MOST_BYTES_PER_BYTE * _nbytes(given, sys.maxsize)
        self._left_bytes = self._most_bytes

    def check(self) -> None:
        """Raise `TemplateLimitError` when the time is over."""
        if time.thread_time() > self._end_s:
            raise TemplateLimitError(f"it takes more than {MOST_SECONDS:g} seconds")

    def reserve(self, nbytes: int) -> None:
        """Refuse what is about to be made, if there is no room for it."""
        if nbytes > self._left_bytes:
            raise TemplateLimitError(
                f"it makes more than {self._most_bytes // 2**20:,} MiB of text and lists"
            )

    def require_digits(self, bits: int) -> None:
        """Refuse a number that is too large."""
        if bits > MOST_BITS:
            raise TemplateLimitError("it reckons with numbers of thousands of digits")

    def charge(self, nbytes: int) -> None:
        """Take something that was made into account."""
        self.check()
        self.reserve(nbytes)
        self._left_bytes -= nbytes

    def take(self, value: Any) -> Any:
        """Take a value that the template has made into account, and return it."""
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
        """The same for a value that may hold others in a new way.

        A small list can hold another so often that to write, to compare or to hash it never ends.
        """
        if isinstance(value, NESTED):
            self.reserve(self.weigh(value))
        return self.take(value)

    def weigh(self, value: object) -> int:
        """The bytes of a value with all that is in it, each part as often as it occurs."""
        return _nbytes(value, self._most_bytes)

    def _counted(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.charge(PLACE_BYTES)
            yield value


def _nbytes(value: Any, most: int) -> int:
    """Count until it is certain to be more than `most`."""
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
