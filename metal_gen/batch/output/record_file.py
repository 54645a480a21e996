"""Appends records to an output, and notices at once if anything else does something to it."""

import os
import time
from contextlib import suppress

from metal_gen.batch.output.lock import HeldOutput
from metal_gen.errors import MetalGenError
from metal_gen.files.parts import has_name
from metal_gen.files.paths import FULL
from metal_gen.files.sync import sync_file

MIB = 2**20
# What a run that goes on reads as one record.
LONGEST_RECORD = 256 * MIB
RESUME = "give --resume: whole records stay, and rows without one are run again"


class RecordFile:
    """The end of an output.

    A record is appended by a single write, so that a process that is killed leaves whole lines.

    Args:
        held: The output, with nothing in it but whole records.
        fsync_interval_s: Most seconds of work that a failure of the machine can take.
    """

    def __init__(self, held: HeldOutput, fsync_interval_s: float) -> None:
        self._held = held
        self._end = held.nbytes
        self._fsync_interval_s = fsync_interval_s
        self._synced_s = time.monotonic()

    @property
    def must_sync(self) -> bool:
        """Whether there is work in danger that is older than the interval."""
        return time.monotonic() - self._synced_s >= self._fsync_interval_s

    def append(self, line: bytes) -> None:
        """Put a record at the end.

        Raises:
            MetalGenError: It cannot be written, and the file ends with the record before it; or something
                else has done something to the file.
        """
        if len(line) > LONGEST_RECORD:
            raise MetalGenError(
                f"a record has {len(line):,} bytes, and at most {LONGEST_RECORD:,} are read again",
                "ask for fewer log-probabilities or samples in a row",
            )
        self._require_untouched()
        written = 0
        try:
            # More than one write only where a disk fills up: the next then says so.
            while written < len(line):
                written += os.write(self._held.descriptor, line[written:])
        except BaseException as error:
            with suppress(OSError):
                os.ftruncate(self._held.descriptor, self._end)
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise
        self._end += len(line)
        # Once more: something may have come between the look and the write.
        self._require_untouched()

    def sync(self) -> None:
        """Have all records on the disk.

        Raises:
            MetalGenError: They are not, or something else has done something to the file.
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
                f"the output {path} was changed by something else while it was written: "
                f"it has {nbytes:,} bytes, and should have {self._end:,}",
                RESUME,
            )

    def _failure(self, error: OSError) -> MetalGenError:
        hint = "make room, then continue with --resume" if error.errno in FULL else ""
        return MetalGenError(f"the output {self._held.path} cannot be written: {error.strerror}", hint)
