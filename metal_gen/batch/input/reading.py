"""Reads a batch line by line, in memory that depends on neither the number nor the length of lines."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from metal_gen.batch.input.rows import BatchRow, RowError, RowForm, parse_row, unreadable
from metal_gen.errors import MetalGenError

LONGEST_LINE = 2 * 2**20
CHUNK_BYTES = 2**16


@dataclass(frozen=True)
class TooLong:
    """A line that was passed over.

    Attributes:
        nbytes: Its length without the newline.
    """

    nbytes: int


def read_rows(stream: BinaryIO, *, field: str | None = None) -> Iterator[BatchRow | RowError]:
    """Read rows; a line that cannot be read is taken for one of the form of the line before it.

    Args:
        stream: JSON Lines.
        field: As for `parse_row`.

    Raises:
        MetalGenError: The stream failed.
    """
    form = RowForm.NATIVE
    for number, line in read_lines(stream):
        if isinstance(line, TooLong):
            reason = f"the line has {line.nbytes:,} bytes, and at most {LONGEST_LINE:,} are read"
            yield unreadable(number, reason, form)
        else:
            row = parse_row(number, line, field=field, form=form)
            form = row.form
            yield row


def read_lines(stream: BinaryIO, *, longest: int = LONGEST_LINE) -> Iterator[tuple[int, bytes | TooLong]]:
    """Read lines that are not blank, with their numbers, counted from 1.

    Args:
        stream: Anything that has `readline`.
        longest: Most bytes of a line without its newline; of a longer one only the length is given.

    Raises:
        MetalGenError: The stream failed; the lines before that have been given.
    """
    number = 0
    while True:
        try:
            line = stream.readline(longest + 1)
            skipped = 0
            if len(line) > longest and not line.endswith(b"\n"):
                skipped = _skip_line(stream)
        except (OSError, EOFError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise MetalGenError(f"the input cannot be read after line {number}: {reason}") from error
        if not line:
            return
        number += 1
        if len(line) > longest and not line.endswith(b"\n"):
            yield number, TooLong(len(line) + skipped)
            continue
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if line.strip():
            yield number, line


def _skip_line(stream: BinaryIO) -> int:
    """Read to the end of a line, and count."""
    skipped = 0
    while part := stream.readline(CHUNK_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            return skipped - 1
    return skipped
