"""Brings an output that was broken off into order, and finds out which rows it has."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from metal_gen.batch.output.index import IdIndex
from metal_gen.batch.output.run_file import sync_folder
from metal_gen.batch.records import record_key


@dataclass
class FoundRecords:
    """What an output had in it.

    Attributes:
        done: Records of texts.
        failed: Records of errors that were left in.
        retried: Records of errors that were taken out, for their rows to be run again.
        damaged: Lines that were taken out because they are no records, a torn last one included.
    """

    done: int = 0
    failed: int = 0
    retried: int = 0
    damaged: int = 0


def repair_output(path: Path, finished: IdIndex, *, retry_failed: bool) -> FoundRecords:
    """Take out of an output what is no record, in memory that its length has no part in.

    A torn end is cut off. Where lines before it must go, those that stay are written to another
    file, which takes the place of the output when it is whole.

    Args:
        path: Of the output.
        finished: Where to put the keys of records that stay.
        retry_failed: Take records of errors out too.

    Raises:
        OSError: It cannot be read or written; the output is as before.
        MetalGenError: The index of ids is full.
    """
    found, end, must_rewrite = FoundRecords(), 0, False
    with path.open("r+b") as file:
        is_broken = False
        for line in file:
            key, is_kept = _judge(line, found, retry_failed=retry_failed)
            if is_kept:
                finished.add(key)
                must_rewrite |= is_broken
                end += len(line)
            is_broken |= not is_kept
        if is_broken and not must_rewrite:
            file.truncate(end)
            os.fsync(file.fileno())
    if must_rewrite:
        _rewrite(path, retry_failed=retry_failed)
    return found


def _judge(line: bytes, found: FoundRecords, *, retry_failed: bool) -> tuple[str, bool]:
    """The key of a line, whether the line stays, and one more counted."""
    named = _named(line)
    if named is None:
        found.damaged += 1
        return "", False
    key, has_failed = named
    if not has_failed:
        found.done += 1
    elif retry_failed:
        found.retried += 1
    else:
        found.failed += 1
    return key, not (has_failed and retry_failed)


def _named(line: bytes) -> tuple[str, bool] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record_key(record) if isinstance(record, dict) else None


def _rewrite(path: Path, *, retry_failed: bool) -> None:
    part = path.parent / f".{path.name}.part"
    try:
        with path.open("rb") as file, part.open("wb") as kept:
            kept.writelines(_kept_lines(file, retry_failed=retry_failed))
            kept.flush()
            os.fsync(kept.fileno())
        shutil.copymode(path, part)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _kept_lines(file: BinaryIO, *, retry_failed: bool) -> Iterator[bytes]:
    for line in file:
        named = _named(line)
        if named is not None and not (named[1] and retry_failed):
            yield line
