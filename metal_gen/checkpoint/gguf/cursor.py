"""Reads the values in the header of a GGUF file, one after the other, and no more of the file than needed.

The file is read, not mapped: if a mapped file is cut short meanwhile, the system kills the process.
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO

from metal_gen.errors import CheckpointError, damaged
from metal_gen.excerpt import excerpt

# struct's letters for the types of numbers.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
MOST_AXES = 4
# Limit on the items of all lists together. A tokenizer of 256,000 tokens has 1.3 million.
MOST_ITEMS = 4_000_000
# The largest headers have about 20 MB, nearly all of it for the tokenizer.
MOST_HEADER_BYTES = 256 << 20
_PART_BYTES = 8 << 20
_LENGTH = struct.Struct("<Q")


class Cursor:
    """A position in the header.

    Args:
        path: Path of the file, for error messages.
        file: The file, at its beginning.

    Attributes:
        place: Offset of the next byte.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.place = 0
        self._path = path
        self._file = file
        self._data = b""
        self._items = 0

    def damaged(self, problem: str) -> CheckpointError:
        """Return the error that refuses this file."""
        return damaged(self._path, problem)

    def take(self, count: int) -> bytes:
        """Read `count` bytes."""
        self._require(self.place + count)
        self.place += count
        return self._data[self.place - count : self.place]

    def numbers(self, letter: str, count: int) -> tuple[Any, ...]:
        """Read `count` numbers of one type."""
        nbytes = count * struct.calcsize(f"<{letter}")
        self._require(self.place + nbytes)
        values = struct.unpack_from(f"<{count}{letter}", self._data, self.place)
        self.place += nbytes
        return values

    def number(self, letter: str) -> Any:
        """Read one number."""
        return self.numbers(letter, 1)[0]

    def text(self) -> str:
        """Read one text."""
        return self.texts(1)[0]

    def texts(self, count: int) -> list[str]:
        """Read `count` texts. A tokenizer has hundreds of thousands."""
        place, unpack, values = self.place, _LENGTH.unpack_from, []
        data, size = self._data, len(self._data)
        try:
            for _ in range(count):
                begin = place + 8
                if begin > size:
                    data, size = self._require(begin)
                place = begin + unpack(data, begin - 8)[0]
                if place > size:
                    data, size = self._require(place)
                values.append(data[begin:place].decode())
        except UnicodeDecodeError as error:
            raise self.damaged(f"a text at byte {begin} of its header is not UTF-8") from error
        self.place = place
        return values

    def value(self, key: str) -> Any:
        """Read a value of the metadata, preceded by its type."""
        kind = self.number("I")
        if kind != LIST:
            return self._values(key, kind, 1)[0]
        item_kind, count = self.number("I"), self.number("Q")
        self._items += count
        if self._items > MOST_ITEMS:
            raise self.damaged(f"{excerpt(key)} claims to have {count:,} items, more than any model needs")
        return self._values(key, item_kind, count)

    def _values(self, key: str, kind: int, count: int) -> list[Any]:
        if kind == TEXT:
            return self.texts(count)
        if kind not in NUMBERS:
            raise self.damaged(
                f"{excerpt(key)} has values of a type with the number {kind}, which is unknown"
            )
        return list(self.numbers(NUMBERS[kind], count))

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Read a tensor's name, its shape with rows last, the number of its type, and its offset."""
        name, axes = self.text(), self.number("I")
        if not 1 <= axes <= MOST_AXES:
            raise self.damaged(f"{excerpt(name)} has {axes} axes")
        shape = tuple(reversed(self.numbers("Q", axes)))
        return name, shape, self.number("I"), self.number("Q")

    def _require(self, end: int) -> tuple[bytes, int]:
        """Read the file up to a byte. Return the data so far and its size."""
        while len(self._data) < min(end, MOST_HEADER_BYTES):
            # Read twice as much each time, because appending copies the data.
            part = self._file.read(max(_PART_BYTES, len(self._data)))
            if not part:
                break
            self._data += part
        if end > len(self._data):
            raise self.damaged("it is cut short within its header, or its header makes no sense")
        return self._data, len(self._data)
