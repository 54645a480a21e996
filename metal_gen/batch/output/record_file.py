"""Appends records to an output, and detects changes to the file by other processes."""

import os
import time
from contextlib import suppress

from metal_gen.batch.output.lock import HeldOutput
from metal_gen.errors import MetalGenError
from metal_gen.files.parts import has_name
from metal_gen.files.paths import FULL
from metal_gen.files.sync import sync_file

MIB = 2**20
# A resumed run reads no longer line as a record.
LONGEST_RECORD = 256 * MIB
RESUME = "give --resume: whole records are kept, and rows without one are run again"


class RecordFile:
    """The end of an output file.

    Each record is appended by a single write, so a killed process leaves whole lines.

    Args:
        held: The output; it must contain only whole records.
        fsync_interval_s: Seconds between syncs: the most work that a machine failure can lose.
    """

    def __init__(self, held: HeldOutput, fsync_interval_s: float) -> None:
        self._held = held
        self._end = held.nbytes
        self._fsync_interval_s = fsync_interval_s
        self._synced_s = time.monotonic()

    @property
    def must_sync(self) -> bool:
        """Whether the last sync is longer ago than the interval."""
        return time.monotonic() - self._synced_s >= self._fsync_interval_s

    def append(self, line: bytes) -> None:
        """Append a record.

        Raises:
            MetalGenError: The record cannot be written, and the file ends with the previous one; or another
                process has changed the file.
            BaseException: What a signal raises; the file has the whole record or nothing of it.
        """
        if len(line) > LONGEST_RECORD:
            raise MetalGenError(
                f"a record has {len(line):,} bytes, and at most {LONGEST_RECORD:,} are read again",
                "ask for fewer log-probabilities or samples in a row",
            )
        self._require_untouched()
        written = 0
        try:
            # A short write means that the disk is filling up; the next write then raises.
            while written < len(line):
                written += os.write(self._held.descriptor, line[written:])
        except BaseException as error:
            with suppress(OSError):
                # A signal may arrive when the whole record is in the file, and others may have read it.
                if self._held.nbytes == self._end + len(line):
                    self._end += len(line)
                else:
                    os.ftruncate(self._held.descriptor, self._end)
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise
        self._end += len(line)
        # Check again: the file may have changed between the check and the write.
        self._require_untouched()

    def sync(self) -> None:
        """Sync all records to the disk.

        Raises:
            MetalGenError: The sync failed, or another process has changed the file.
        """
        try:
            sync_file(self._held.descriptor)
        except OSError as error:
            raise self._failure(error) from error
        self._require_untouched()
        self._synced_s = time.monotonic()

    def _require_untouched(self) -> None:
        path = self._held.path
        try:
            is_there, nbytes = has_name(self._held.descriptor, path), self._held.nbytes
        except OSError as error:
            raise self._failure(error) from error
        if not is_there:
            what = "another file has taken its name" if os.path.lexists(path) else "it was removed or renamed"
            raise MetalGenError(
                f"the output {path} was lost while it was written: {what}",
                f"put it back, if it was renamed; then {RESUME}",
            )
        if nbytes != self._end:
            raise MetalGenError(
                f"the output {path} was changed by another process while it was written: "
                f"it has {nbytes:,} bytes, and should have {self._end:,}",
                RESUME,
            )

    def _failure(self, error: OSError) -> MetalGenError:
        hint = "make room, then continue with --resume" if error.errno in FULL else ""
        return MetalGenError(f"the output {self._held.path} cannot be written: {error.strerror}", hint)
