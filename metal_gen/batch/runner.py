"""Runs the rows of a batch and writes the outcomes to a journal.

A row's text depends only on the row, the seed and the settings. It does not depend on the other rows or on
where a run was interrupted.
"""

import hashlib
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

from metal_gen.batch.executor import Outcome, RowExecutor
from metal_gen.batch.input.rows import AnyRow, Row, RowError, repeated
from metal_gen.batch.output.index import IdIndex
from metal_gen.batch.output.journal import Journal, StreamJournal
from metal_gen.batch.output.order import AnyOrder, RowOrder
from metal_gen.batch.records import error_record
from metal_gen.errors import ExitCode, MetalGenError

# With kept order: finished rows that may wait for an earlier row. Bounds the memory they use.
MOST_WAITING_PER_SLOT = 32
SEED_BYTES = 4


@dataclass
class BatchCounts:
    """Progress of a batch.

    Attributes:
        done: Rows whose texts have been written.
        failed: Rows whose errors have been written.
        skipped: Rows that an earlier run finished, failed ones included.
        failed_before: The failed rows among `skipped`.
        prompt_tokens: Prompt tokens of the `done` rows.
        completion_tokens: New tokens of the `done` rows, all samples together.
        cached_tokens: Prompt tokens of the `done` rows that were read from the prefix cache.
        slots: Number of texts that can be generated concurrently.
        slots_in_use: Number of texts being generated now.
        occupancy: Mean share of the slots in use while rows remained; None if no step counts.
        seconds: Time since the first row.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    failed_before: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    slots: int = 1
    slots_in_use: int = 0
    occupancy: float | None = None
    begin_s: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def seconds(self) -> float:
        """Time since the first row."""
        return time.perf_counter() - self.begin_s

    @property
    def completion_tps(self) -> float:
        """New tokens per second."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0


class FirstErrorError(MetalGenError):
    """A row failed in a strict run."""

    exit_code = ExitCode.FAILED_ROWS


def row_seed(seed: int, key: str) -> int:
    """Derive the seed of a row that sets none; it depends only on the run's seed and the row's id."""
    digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
    return int.from_bytes(digest[:SEED_BYTES], "big")


def run_rows(
    rows: Iterator[Row | RowError | None],
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
    """Generate the text of every row that the journal lacks, and append the records.

    Args:
        rows: Rows in input order; None means that the next row has not arrived yet.
        executor: Generates the texts.
        journal: Receives one record per row.
        seed: Seed of the run.
        strict: Stop at the first row that fails.
        ordered: Append records in input order instead of as they finish.
        on_idle: Called when no row is being generated and the next has not arrived; returns when it may have.
        on_step: Called after each step, and with the counts after it.
        on_notice: Called once per distinct notice about the prompts.
        on_failure: Called with each failed row after its record has been written.

    Raises:
        FirstErrorError: A row failed and `strict` is set; the journal keeps the rows finished before it.
        MetalGenError: The journal cannot be written, the input cannot be read, or the checkpoint is unusable.
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
    rows: Iterator[AnyRow | RowError | None], finished: Container[str], counts: BatchCounts
) -> Iterator[AnyRow | RowError | None]:
    """Yield the rows still to run; a row that repeats an id becomes an error."""
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
    """Passes rows to an executor while it has room and rows remain.

    Attributes:
        is_over: The rows are exhausted.
        is_waiting: The next row has not arrived yet.
    """

    def __init__(
        self,
        rows: Iterator[Row | RowError | None],
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
        """Pass on the rows that have arrived, as far as the executor has room."""
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
        """Append one outcome; in a strict run, raise if the row failed."""
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
        self._counts.cached_tokens += outcome.cached_tokens
