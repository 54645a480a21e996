"""The output of a batch: one record a line, each there whole or not at all, whatever ends the process.

A record is appended by a single write, so that a process that is killed leaves whole lines; what a
machine that fails has left of a line is cut off by the next run.
"""

import errno
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from metal_gen.batch.output.index import IdIndex
from metal_gen.batch.output.lock import OutputLock, hold_output, released_on_error
from metal_gen.batch.output.repair import FoundRecords, repair_output
from metal_gen.batch.output.run_file import Fingerprint, begin_run, continue_run
from metal_gen.batch.records import encode_record
from metal_gen.errors import MetalGenError, UsageError

FSYNC_INTERVAL_S = 5.0
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Journal:
    """A file of records, made by `create` or `resume`.

    Attributes:
        path: Of the file; of a link, where it points to.
        seed: Of the run, as it was given or as it was chosen when the run began.
        finished: Keys of the rows whose records were there.
        found: How many records were there, and how many were taken out.
    """

    def __init__(
        self,
        path: Path,
        lock: OutputLock,
        fingerprint: Fingerprint,
        *,
        is_new: bool,
        retry_failed: bool,
        fsync_interval_s: float,
    ) -> None:
        self.path = path
        self.finished = IdIndex()
        self.found = FoundRecords()
        self._lock: OutputLock | None = lock
        self._fsync_interval_s = fsync_interval_s
        try:
            if is_new:
                # Emptied first: records of an older run must not stand beside the name of a new one.
                path.open("wb").close()
                self.seed = begin_run(path, fingerprint)
            else:
                self.seed = continue_run(path, fingerprint)
                self.found = repair_output(path, self.finished, retry_failed=retry_failed)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        except BaseException:
            self.finished.close()
            raise
        self._synced_s = time.monotonic()

    @classmethod
    def create(
        cls,
        path: Path,
        fingerprint: Fingerprint,
        *,
        overwrite: bool = False,
        fsync_interval_s: float = FSYNC_INTERVAL_S,
    ) -> Self:
        """Begin an output.

        Args:
            path: Of the file.
            fingerprint: What the records depend on; a seed of None is chosen.
            overwrite: Throw away what is there.
            fsync_interval_s: Most seconds of work that a failure of the machine can take.

        Raises:
            UsageError: There are records, or nothing can be written there.
            OutputHeldError: Another run writes there.
        """
        path, lock = hold_output(path)
        with released_on_error(path, lock):
            if not overwrite and not _is_empty(path):
                raise UsageError(
                    f"the output {path} is there already", "give --resume to go on with it, or --overwrite"
                )
            return cls(
                path, lock, fingerprint, is_new=True, retry_failed=False, fsync_interval_s=fsync_interval_s
            )

    @classmethod
    def resume(
        cls,
        path: Path,
        fingerprint: Fingerprint,
        *,
        retry_failed: bool = False,
        fsync_interval_s: float = FSYNC_INTERVAL_S,
    ) -> Self:
        """Go on with an output that was broken off, or begin where there is none.

        Args:
            path: Of the file.
            fingerprint: As the output was begun with; a seed of None is the one that was chosen then.
            retry_failed: Take records of errors out, for their rows to be run again.
            fsync_interval_s: As for `create`.

        Raises:
            UsageError: It was begun with another fingerprint, or cannot be read or written.
            OutputHeldError: Another run writes there.
        """
        path, lock = hold_output(path)
        with released_on_error(path, lock):
            return cls(
                path,
                lock,
                fingerprint,
                is_new=_is_empty(path),
                retry_failed=retry_failed,
                fsync_interval_s=fsync_interval_s,
            )

    def append(self, record: Mapping[str, object]) -> None:
        """Put a record at the end.

        Raises:
            MetalGenError: It cannot be written; the file ends with the record before it.
        """
        line = encode_record(record)
        end = os.fstat(self._descriptor).st_size
        try:
            # More than one write only where a disk fills up: the next then says so.
            written = os.write(self._descriptor, line)
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except BaseException as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, end)
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise
        if time.monotonic() - self._synced_s >= self._fsync_interval_s:
            self.sync()

    def sync(self) -> None:
        """Have all records on the disk.

        Raises:
            MetalGenError: They are not, or the file no longer has its name.
        """
        try:
            os.fsync(self._descriptor)
            if not os.path.samestat(os.fstat(self._descriptor), self.path.stat()):
                raise FileNotFoundError(errno.ENOENT, "another file has taken its name")
        except OSError as error:
            raise self._failure(error) from error
        self._synced_s = time.monotonic()

    def close(self) -> None:
        """Have all records on the disk, and let another run have the file.

        Raises:
            MetalGenError: As `sync`; the file is let go all the same.
        """
        if self._lock is None:
            return
        try:
            self.sync()
        finally:
            self.finished.close()
            os.close(self._descriptor)
            self._lock.release()
            self._lock = None

    def _failure(self, error: OSError) -> MetalGenError:
        hint = "make room, then give --resume to go on" if error.errno in FULL else ""
        return MetalGenError(f"the output {self.path} cannot be written: {error.strerror}", hint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(MetalGenError):
                self.close()


class StreamJournal:
    """Records on a stream, such as standard output: no lock, and nothing to go on with.

    Args:
        stream: Is left open.
        seed: Of the run.

    Attributes:
        finished: Empty.
        found: Nothing.
    """

    def __init__(self, stream: BinaryIO, seed: int) -> None:
        self.seed = seed
        self.finished = IdIndex()
        self.found = FoundRecords()
        self._stream = stream

    def append(self, record: Mapping[str, object]) -> None:
        """Write a record, and hand it on at once.

        Raises:
            BrokenPipeError: Nobody reads any more.
            MetalGenError: It cannot be written.
        """
        line = encode_record(record)
        with _naming_the_stream():
            self._stream.write(line)
            self._stream.flush()

    def sync(self) -> None:
        """Hand on what has been written; raises as `append` does."""
        with _naming_the_stream():
            self._stream.flush()

    def close(self) -> None:
        """Give the index up."""
        self.finished.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def _naming_the_stream() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise MetalGenError(f"the output cannot be written: {error.strerror}") from error


def _is_empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0
