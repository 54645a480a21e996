"""Runs the rows of a batch, and puts what comes of them into a journal.

A row's text depends on the row, the seed and the settings, and on nothing else: not on the rows
beside it, nor on where a run was broken off.
"""

import hashlib
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

from metal_gen.batch.executor import Outcome, RowExecutor
from metal_gen.batch.input.rows import BatchRow, RowError, repeated
from metal_gen.batch.output.index import IdIndex
from metal_gen.batch.output.journal import Journal, StreamJournal
from metal_gen.batch.output.order import AnyOrder, RowOrder
from metal_gen.batch.records import error_record
from metal_gen.errors import ExitCode, MetalGenError

# Finished rows that wait for an earlier one, where order is kept: bounds the memory they take.
MOST_WAITING_PER_SLOT = 32
SEED_BYTES = 4


@dataclass
class BatchCounts:
    """What has been done so far.

    Attributes:
        done: Rows whose texts have been written.
        failed: Rows of which an error has been written.
        skipped: Rows that an earlier run had finished, those that failed included.
        failed_before: Of these, the ones that failed.
        prompt_tokens: Of the rows done.
        completion_tokens: Of the rows done, all samples together.
        slots: Texts that can be under way at once.
        slots_in_use: Texts that are.
        occupancy: Share of the slots that had a part in a text, over the passes while rows remained; None
            where there were none such.
        seconds: Since the first row.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    failed_before: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    slots: int = 1
    slots_in_use: int = 0
    occupancy: float | None = None
    begin_s: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def seconds(self) -> float:
        """Since the first row."""
        return time.perf_counter() - self.begin_s

    @property
    def completion_tps(self) -> float:
        """New tokens per second."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0


class FirstErrorError(MetalGenError):
    """A row failed and none may."""

    exit_code = ExitCode.FAILED_ROWS


def row_seed(seed: int, key: str) -> int:
    """The seed of a row that names none: from the run's seed and the row's id alone."""
    digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
    return int.from_bytes(digest[:SEED_BYTES], "big")


def run_rows(
    rows: Iterator[BatchRow | RowError | None],
    executor: RowExecutor,
    journal: Journal | StreamJournal,
    *,
    seed: int,
    strict: bool = False,
    ordered: bool = False,
    on_idle: Callable[[], object],
    on_step: Callable[[BatchCounts], None],
    on_notice: Callable[[str], None],
    on_failure: Callable[[RowError], None],
) -> BatchCounts:
    """Generate the text of every row that the journal lacks, and append it.

    Args:
        rows: Of the input, in its order; None stands for one that has not come yet.
        executor: Generates their texts.
        journal: Takes a record for every row.
        seed: Of the run.
        strict: Stop at the first row that fails.
        ordered: Append records in the order of the rows, rather than as they are finished.
        on_idle: Called while no row is under way and the next has not come; returns when one may have.
        on_step: Called after each pass, and with what it finished.
        on_notice: Called once with each thing that a person should know about the prompts.
        on_failure: Called with each row that has failed, when its record has been written.

    Raises:
        FirstErrorError: A row failed and `strict` is set; what was finished before is in the journal.
        MetalGenError: The journal cannot be written, the input not be read, or the checkpoint not be used.
    """
    counts = BatchCounts(failed_before=journal.found.failed)
    output = _Output(journal, counts, on_notice, on_failure, strict=strict)
    queue: RowOrder | AnyOrder = RowOrder(output.put) if ordered else AnyOrder(output.put)
    feed = _Feed(pending_rows(rows, journal.finished, counts), executor, queue, seed)
    while True:
        feed.fill()
        if executor.is_idle:
            if feed.is_over:
                return counts
            if feed.is_waiting:
                on_idle()
            continue
        for number, outcome in executor.advance():
            queue.put(number, outcome)
        counts.slots, counts.slots_in_use = executor.slots, executor.slots_in_use
        if not feed.is_over:
            counts.occupancy = executor.occupancy
        on_step(counts)


def pending_rows(
    rows: Iterator[BatchRow | RowError | None], finished: Container[str], counts: BatchCounts
) -> Iterator[BatchRow | RowError | None]:
    """The rows that are still to be run; a second row of the same id is an error."""
    with IdIndex() as seen:
        for row in rows:
            if row is None:
                yield None
                continue
            unique = row if seen.add(row.key) else repeated(row)
            if unique.key in finished:
                counts.skipped += 1
            else:
                yield unique


class _Feed:
    """Hands rows to an executor for as long as it has room and there are any.

    Attributes:
        is_over: There are no more.
        is_waiting: The next has not come yet.
    """

    def __init__(
        self,
        rows: Iterator[BatchRow | RowError | None],
        executor: RowExecutor,
        queue: RowOrder | AnyOrder,
        seed: int,
    ) -> None:
        self._rows = rows
        self._executor = executor
        self._queue = queue
        self._seed = seed
        self.is_over = self.is_waiting = False

    def fill(self) -> None:
        """Hand over the rows that have come, as many as there is room for."""
        executor, queue = self._executor, self._queue
        while executor.has_room and queue.waiting < MOST_WAITING_PER_SLOT * executor.slots:
            try:
                row = next(self._rows)
            except StopIteration:
                self.is_over = True
                return
            self.is_waiting = row is None
            if row is None:
                return
            queue.expect(row.number)
            failed = row if isinstance(row, RowError) else executor.begin(row, row_seed(self._seed, row.key))
            if failed is not None:
                queue.put(row.number, failed)


class _Output:
    """Puts outcomes into the journal and counts them."""

    def __init__(
        self,
        journal: Journal | StreamJournal,
        counts: BatchCounts,
        on_notice: Callable[[str], None],
        on_failure: Callable[[RowError], None],
        *,
        strict: bool,
    ) -> None:
        self._journal = journal
        self._counts = counts
        self._on_notice = on_notice
        self._on_failure = on_failure
        self._strict = strict
        self._said: set[str] = set()

    def put(self, outcome: Outcome) -> None:
        """Append one; a failed row ends a strict run."""
        if isinstance(outcome, RowError):
            self._journal.append(error_record(outcome))
            self._counts.failed += 1
            if self._strict:
                raise FirstErrorError(
                    f"row {outcome.number} failed: {outcome.reason}",
                    "continue with --resume, without --strict",
                )
            self._on_failure(outcome)
            return
        self._journal.append(outcome.record)
        for notice in sorted(set(outcome.notices) - self._said):
            self._on_notice(notice)
            self._said.add(notice)
        self._counts.done += 1
        self._counts.prompt_tokens += outcome.prompt_tokens
        self._counts.completion_tokens += outcome.completion_tokens
