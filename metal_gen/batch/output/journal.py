"""The output of a batch: one record per line, written whole or not at all, whatever ends the process.

Each record is appended by a single write, so a killed process leaves whole lines. If the machine fails and
leaves part of a line, the next run cuts it off.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

from metal_gen.batch.input.stream import InputStream
from metal_gen.batch.output.index import IdIndex
from metal_gen.batch.output.lock import HeldOutput, hold_output, released_on_error
from metal_gen.batch.output.record_file import RecordFile
from metal_gen.batch.output.repair import FoundRecords, failed_lines, repair_output
from metal_gen.batch.output.run_file import Fingerprint, RunFile
from metal_gen.batch.records import encode_record
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.files.sync import FSYNC_INTERVAL_S


class Journal:
    """A file of records; `create` and `resume` open one.

    Attributes:
        path: Path of the file, with links resolved.
        seed: Seed of the run, as given or as chosen when the run began.
        moment: Time when the run began, if its records depend on the time.
        finished: Keys of the rows that already had records.
        found: Counts of the records that were present or were removed.
    """

    def __init__(
        self,
        held: HeldOutput,
        run: RunFile,
        *,
        is_new: bool,
        retry_failed: bool,
        fsync_interval_s: float,
    ) -> None:
        self.path = held.path
        self.finished = IdIndex()
        self.found = FoundRecords()
        self._held: HeldOutput | None = held
        self._run = run
        try:
            if is_new:
                run.begin(held.empty)
            else:
                run.go_on(partial(failed_lines, held), retry_failed=retry_failed)
                self.found = repair_output(held, self.finished, retry_failed=retry_failed)
            self._records = RecordFile(held, fsync_interval_s)
        except BaseException:
            self.finished.close()
            raise
        self.seed, self.moment = run.seed, run.moment

    @classmethod
    def create(
        cls,
        path: Path,
        fingerprint: Fingerprint,
        *,
        input: InputStream | None = None,
        overwrite: bool = False,
        fsync_interval_s: float = FSYNC_INTERVAL_S,
    ) -> Self:
        """Start an output.

        Args:
            path: Path of the file.
            fingerprint: Values that the records depend on; a seed of None means to choose one.
            input: The input file; None for a stream.
            overwrite: Discard existing records.
            fsync_interval_s: Seconds between syncs: the most work that a machine failure can lose.

        Raises:
            UsageError: The file has records, or it cannot be written.
            OutputHeldError: Another run is writing it.
            MetalGenError: The disk is full.
        """
        held = hold_output(path)
        with released_on_error(held):
            if held.nbytes and not overwrite:
                raise UsageError(
                    f"the output {held.path} already exists",
                    "give --resume to continue it, or --overwrite to replace it",
                )
            run = RunFile(held.path, fingerprint, input)
            return cls(held, run, is_new=True, retry_failed=False, fsync_interval_s=fsync_interval_s)

    @classmethod
    def resume(
        cls,
        path: Path,
        fingerprint: Fingerprint,
        *,
        input: InputStream | None = None,
        retry_failed: bool = False,
        fsync_interval_s: float = FSYNC_INTERVAL_S,
    ) -> Self:
        """Continue an interrupted output, or start one if there is none.

        Args:
            path: Path of the file.
            fingerprint: Must equal that of the first run; a seed of None means the seed chosen then.
            input: The input of the first run; lines may have been added at its end.
            retry_failed: Remove error records so that their rows are run again.
            fsync_interval_s: As for `create`.

        Raises:
            UsageError: The fingerprint or the input differs, or the file cannot be read or written.
            OutputHeldError: Another run is writing it.
            MetalGenError: The disk is full.
        """
        held = hold_output(path)
        with released_on_error(held):
            return cls(
                held,
                RunFile(held.path, fingerprint, input),
                is_new=not held.nbytes,
                retry_failed=retry_failed,
                fsync_interval_s=fsync_interval_s,
            )

    def append(self, record: Mapping[str, object]) -> None:
        """Append a record.

        Raises:
            MetalGenError: The record cannot be written, and the file ends with the previous one; or another
                process has changed the file.
        """
        self._records.append(encode_record(record))
        if self._records.must_sync:
            self.sync()

    def sync(self) -> None:
        """Sync all records to the disk, together with the run file needed to resume.

        Raises:
            MetalGenError: The sync failed, or another process has changed the file.
        """
        self._records.sync()
        try:
            self._run.restore()
        except OSError as error:
            raise MetalGenError(f"{self._run.path} cannot be written: {error.strerror}") from error

    def require_same_input(self) -> None:
        """Check that the rows read are those recorded in the run file.

        Raises:
            MetalGenError: Another process has changed the input meanwhile.
        """
        self._run.require_same_input()

    def close(self) -> None:
        """Sync all records to the disk and release the file.

        Raises:
            MetalGenError: As for `sync`; the file is released anyway.
        """
        if self._held is None:
            return
        try:
            self.sync()
        finally:
            self.finished.close()
            self._held.release()
            self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None:
            self.close()
            return
        if self._held is not None and self._held.remove_if_unused():
            self._run.remove()
        with suppress(MetalGenError):
            self.close()


class StreamJournal:
    """Records on a stream such as standard output: there is no lock, and a run cannot be resumed.

    Args:
        stream: The stream; it stays open.
        seed: Seed of the run.

    Attributes:
        moment: Time when the run began.
        finished: Always empty.
        found: Always zero.
    """

    def __init__(self, stream: BinaryIO, seed: int) -> None:
        self.seed = seed
        self.moment = datetime.now()
        self.finished = IdIndex()
        self.found = FoundRecords()
        self._stream = stream

    def append(self, record: Mapping[str, object]) -> None:
        """Write a record and flush it.

        Raises:
            BrokenPipeError: The reader has closed the pipe.
            MetalGenError: The record cannot be written.
        """
        line = encode_record(record)
        with _naming_the_stream():
            self._stream.write(line)
            self._stream.flush()

    def sync(self) -> None:
        """Flush the stream; raises as `append` does."""
        with _naming_the_stream():
            self._stream.flush()

    def require_same_input(self) -> None:
        """Do nothing: a stream keeps no mark of the input."""

    def close(self) -> None:
        """Close the index."""
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
