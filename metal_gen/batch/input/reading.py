"""Reads a batch line by line; memory depends neither on the number of lines nor on their length.

With a pipe, None stands for a line that has not arrived yet.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from metal_gen.batch.input.row_json import first_fields
from metal_gen.batch.input.row_parsing import parse_row
from metal_gen.batch.input.rows import AnyRow, BatchRow, RowError, RowForm, unreadable
from metal_gen.errors import MetalGenError

LONGEST_LINE = 2 * 2**20


class ByteSource(Protocol):
    """A source of bytes."""

    def read(self) -> bytes | None:
        """Return the bytes that have arrived: empty at the end, None if nothing has arrived yet.

        Raises:
            OSError: The source cannot be read.
        """


@dataclass(frozen=True)
class TooLong:
    """A line that is too long and was skipped.

    Attributes:
        nbytes: Length of the line in bytes, without the newline.
        beginning: The first bytes of the line.
    """

    nbytes: int
    beginning: bytes


def read_rows(
    source: ByteSource, *, field: str | None = None, keep_fields: bool = False
) -> Iterator[BatchRow | RowError | None]:
    """Read rows of prompts; arguments as for `parse_row`, errors as for `parsed_rows`."""

    def parse(number: int, line: bytes, form: RowForm) -> BatchRow | RowError:
        return parse_row(number, line, field=field, keep_fields=keep_fields, form=form)

    return parsed_rows(source, parse)


def parsed_rows(
    source: ByteSource, parse: Callable[[int, bytes, RowForm], AnyRow | RowError]
) -> Iterator[AnyRow | RowError | None]:
    """Read rows; a line that cannot be read is assumed to have the form of the previous line.

    Args:
        source: JSON Lines.
        parse: Makes a row from the number of a line, its bytes, and the form to use if it cannot be read.

    Raises:
        MetalGenError: The source cannot be read.
    """
    form = RowForm.NATIVE
    for numbered in read_lines(source):
        if numbered is None:
            yield None
            continue
        number, line = numbered
        if isinstance(line, TooLong):
            reason = f"the line has {line.nbytes:,} bytes, and at most {LONGEST_LINE:,} are read"
            row: AnyRow | RowError = unreadable(number, reason, form, first_fields(line.beginning))
        else:
            row = parse(number, line, form)
        form = row.form
        yield row


def read_lines(
    source: ByteSource, *, longest: int = LONGEST_LINE
) -> Iterator[tuple[int, bytes | TooLong] | None]:
    """Read the lines that are not blank, with their line numbers, counted from 1.

    Args:
        source: The bytes.
        longest: Maximum bytes of a line without its newline; a longer line is cut off there.

    Raises:
        MetalGenError: The source cannot be read further; the lines before the failure have been yielded.
    """
    number, lines = 0, _LineSplitter(longest)
    while True:
        try:
            data = source.read()
        except OSError as error:
            reason = error.strerror or error
            raise MetalGenError(f"the input cannot be read after line {number}: {reason}") from error
        if data is None:
            yield None
            continue
        for line in lines.add(data) if data else lines.finish():
            number += 1
            if isinstance(line, TooLong) or line.strip():
                yield number, line
        if not data:
            return


class _LineSplitter:
    """Splits bytes into lines."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._line = bytearray()
        self._passed_over = 0

    def add(self, data: bytes) -> Iterator[bytes | TooLong]:
        """Yield the lines that these bytes complete."""
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._append(part)
            yield self._end()
        self._append(rest)

    def finish(self) -> Iterator[bytes | TooLong]:
        """Yield the last line, which may lack its newline."""
        if self._line or self._passed_over:
            yield self._end()

    def _append(self, part: bytes) -> None:
        room = self._longest - len(self._line)
        self._line += part[:room]
        self._passed_over += max(0, len(part) - room)

    def _end(self) -> bytes | TooLong:
        line, passed_over = bytes(self._line), self._passed_over
        self._line.clear()
        self._passed_over = 0
        if passed_over:
            return TooLong(len(line) + passed_over, line)
        return line.removesuffix(b"\r")
