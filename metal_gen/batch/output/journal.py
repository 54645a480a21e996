"""The output of a batch: one record a line, each there whole or not at all, whatever ends the process.

A record is appended by a single write, so that a process that is killed leaves whole lines; what a
machine that fails has left of a line is cut off by the next run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Self

from metal_gen.batch.input.stream import InputStream
from metal_gen.batch.output.index import IdIndex
from metal_gen.batch.output.lock import HeldOutput, hold_output, released_on_error
from metal_gen.batch.output.record_file import RecordFile
from metal_gen.batch.output.repair import FoundRecords, repair_output
from metal_gen.batch.output.run_file import Fingerprint, RunFile
from metal_gen.batch.records import encode_record
from metal_gen.errors import MetalGenError, UsageError

FSYNC_INTERVAL_S = 5.0


class Journal:
    """A file of records, made by `create` or `resume`.

    Attributes:
        path: Of the file; of a link, where it points to.
        seed: Of the run, as it was given or as it was chosen when the run began.
        moment: When the run began, where its records depend on the time.
        finished: Keys of the rows whose records were there.
        found: How many records were there, and how many were taken out.
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
                run.go_on()
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
        """Begin an output.

        Args:
            path: Of the file.
            fingerprint: What the records depend on; a seed of None is chosen.
            input: The file of rows; None where it is a stream.
            overwrite: Throw away what is there.
            fsync_interval_s: Most seconds of work that a failure of the machine can take.

        Raises:
            UsageError: There are records, or nothing can be written there.
            OutputHeldError: Another run writes there.
            MetalGenError: The disk is full.
        """
        held = hold_output(path)
        with released_on_error(held):
            if held.nbytes and not overwrite:
                raise UsageError(
                    f"the output {held.path} is there already",
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
        """Go on with an output that was broken off, or begin where there is none.

        Args:
            path: Of the file.
            fingerprint: As the output was begun with; a seed of None is the one that was chosen then.
            input: As the output was begun with; lines may have been added at its end.
            retry_failed: Take records of errors out, for their rows to be run again.
            fsync_interval_s: As for `create`.

        Raises:
            UsageError: It was begun with another fingerprint or input, or cannot be read or written.
            OutputHeldError: Another run writes there.
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
        """Put a record at the end.

        Raises:
            MetalGenError: It cannot be written, and the file ends with the record before it; or something
                else has done something to the file.
        """
        self._records.append(encode_record(record))
        if self._records.must_sync:
            self.sync()

    def sync(self) -> None:
        """Have all records on the disk, and what is needed to go on with them.

        Raises:
            MetalGenError: They are not, or something else has done something to the file.
        """
        self._records.sync()
        try:
            self._run.restore()
        except OSError as error:
            raise MetalGenError(f"{self._run.path} cannot be written: {error.strerror}") from error

    def require_same_input(self) -> None:
        """See that the rows that were read are those that the run file tells of.

        Raises:
            MetalGenError: Something else has changed the input meanwhile.
        """
        self._run.require_same_input()

    def close(self) -> None:
        """Have all records on the disk, and let another run have the file.

        Raises:
            MetalGenError: As `sync`; the file is let go all the same.
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
    """Records on a stream, such as standard output: no lock, and nothing to go on with.

    Args:
        stream: Is left open.
        seed: Of the run.

    Attributes:
        moment: When the run began.
        finished: Empty.
        found: Nothing.
    """

    def __init__(self, stream: BinaryIO, seed: int) -> None:
        self.seed = seed
        self.moment = datetime.now()
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

    def require_same_input(self) -> None:
        """Nothing tells what the rows were."""

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
