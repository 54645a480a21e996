"""Repairs an interrupted output, and finds the rows it has records for."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from metal_gen.batch.output.index import IdIndex
from metal_gen.batch.output.lock import HeldOutput
from metal_gen.batch.output.record_file import LONGEST_RECORD
from metal_gen.batch.records import record_key
from metal_gen.files.sync import sync_file
from metal_gen.files.whole_file import WholeFile

PIECE_BYTES = 2**20
# Limit of the failed lines that a run with corrected rows looks at.
MOST_FAILED_LINES = 2**20


@dataclass
class FoundRecords:
    """Counts of the lines of an output.

    Attributes:
        done: Records of successful rows.
        failed: Error records that were kept.
        retried: Error records that were removed so that their rows are run again.
        damaged: Lines that were removed because they are not records, including a torn last line.
        repeated: Records that were removed because their row has an earlier one.
    """

    done: int = 0
    failed: int = 0
    retried: int = 0
    damaged: int = 0
    repeated: int = 0


def repair_output(held: HeldOutput, finished: IdIndex, *, retry_failed: bool) -> FoundRecords:
    """Remove from an output all lines that are not records; memory does not depend on its length.

    A torn last line is cut off in place. If lines before the end must go, the remaining ones are written to
    another file, which replaces the output when complete.

    Args:
        held: The output.
        finished: Receives the keys of the records that are kept.
        retry_failed: Remove error records too.

    Raises:
        OSError: The output cannot be read or written; it is unchanged except for a cut torn line.
        MetalGenError: The index of ids is full, or another run locked the file first.
    """
    found, end, is_broken = FoundRecords(), 0, False
    found.damaged = int(_cut_torn_end(held))
    with ExitStack() as opened:
        file = opened.enter_context(open(held.descriptor, "rb", PIECE_BYTES, closefd=False))
        file.seek(0)
        kept: WholeFile | None = None
        for line in _lines(file):
            if not _stays(line, found, finished, retry_failed=retry_failed):
                is_broken = True
                continue
            if is_broken and kept is None:
                kept = opened.enter_context(WholeFile(held.path, follows_link=False))
                _copy(held.descriptor, end, kept)
            if kept is not None:
                kept.write(line)
            end += len(line)
        if kept is not None:
            kept.commit()
            held.follow()
        elif is_broken:
            os.ftruncate(held.descriptor, end)
            sync_file(held.descriptor)
    return found


def failed_lines(held: HeldOutput) -> set[int]:
    """Return the numbers of the lines whose rows failed, as their records say, up to a limit.

    Raises:
        OSError: The output cannot be read.
    """
    numbers: set[int] = set()
    with open(held.descriptor, "rb", PIECE_BYTES, closefd=False) as file:
        file.seek(0)
        for line in _lines(file):
            record = _record(line)
            if record is None or len(numbers) == MOST_FAILED_LINES:
                continue
            error = record.get("error")
            if isinstance(error, dict) and type(number := error.get("line")) is int:
                numbers.add(number)
    return numbers


def _cut_torn_end(held: HeldOutput) -> bool:
    """Cut off what follows the last newline, without reading lines; return whether there was anything."""
    nbytes = end = held.nbytes
    while end:
        begin = max(0, end - PIECE_BYTES)
        place = os.pread(held.descriptor, end - begin, begin).rfind(b"\n")
        if place >= 0:
            end = begin + place + 1
            break
        end = begin
    if end == nbytes:
        return False
    os.ftruncate(held.descriptor, end)
    sync_file(held.descriptor)
    return True


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines; of a line too long for a record, only the beginning, without a newline."""
    while line := file.readline(LONGEST_RECORD):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(PIECE_BYTES)


def _stays(line: bytes, found: FoundRecords, finished: IdIndex, *, retry_failed: bool) -> bool:
    """Return whether a line is kept, and count it."""
    named = _named(line)
    if named is None:
        found.damaged += 1
        return False
    key, has_failed = named
    if has_failed and retry_failed:
        found.retried += 1
        return False
    if not finished.add(key):
        found.repeated += 1
        return False
    if has_failed:
        found.failed += 1
    else:
        found.done += 1
    return True


def _named(line: bytes) -> tuple[str, bool] | None:
    record = _record(line)
    return None if record is None else record_key(record)


def _record(line: bytes) -> dict[str, object] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _copy(descriptor: int, end: int, kept: WholeFile) -> None:
    """Copy the beginning of a file without moving its read position."""
    place = 0
    while place < end and (piece := os.pread(descriptor, min(PIECE_BYTES, end - place), place)):
        kept.write(piece)
        place += len(piece)
