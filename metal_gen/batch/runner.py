"""Runs the rows of a batch over a loaded model, one after another, into a journal.

A row's text depends on the row, the seed and the settings, and on nothing else: not on the rows
before it, nor on where a run was broken off.
"""

import hashlib
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from metal_gen.batch.index import IdIndex
from metal_gen.batch.journal import Journal, StreamJournal
from metal_gen.batch.records import error_record, success_record
from metal_gen.batch.rows import BatchRow, RowError, RowErrorCode, repeated
from metal_gen.checkpoint.chat_template import MessagesRefusedError
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.prompt import Prompt, encode_prompt
from metal_gen.config.settings import Settings
from metal_gen.config.sources import override_with_arguments
from metal_gen.engine.stopping import require_capacity
from metal_gen.errors import DoesNotFitError, ExitCode, MetalGenError, UsageError
from metal_gen.loading import PreparedModel, TextModel
from metal_gen.sampling.sampler import LogitsError
from metal_gen.text_generation import generate_samples

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
        seconds: Since the first row.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    failed_before: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
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
    rows: Iterator[BatchRow | RowError],
    model: TextModel,
    journal: Journal | StreamJournal,
    *,
    seed: int,
    strict: bool = False,
    on_row: Callable[[BatchCounts], None],
    on_notice: Callable[[str], None],
) -> BatchCounts:
    """Generate the text of every row that the journal lacks, and append it.

    Args:
        rows: Of the input, in its order.
        model: Its cache is used by one row at a time.
        journal: Takes a record for every row.
        seed: Of the run.
        strict: Stop at the first row that fails.
        on_row: Called after each row.
        on_notice: Called once with each thing that a person should know about the prompts.

    Raises:
        FirstErrorError: A row failed and `strict` is set; the rows before it are in the journal.
        MetalGenError: The journal cannot be written, the input not be read, or the checkpoint not be used.
    """
    model.checkpoint.tokenizer.expect_many_texts()
    counts = BatchCounts(failed_before=journal.found.failed)
    said: set[str] = set()
    for row in pending_rows(rows, journal.finished, counts):
        outcome = _outcome(row, model, seed) if isinstance(row, BatchRow) else row
        if isinstance(outcome, RowError):
            journal.append(error_record(outcome))
            counts.failed += 1
        else:
            journal.append(outcome.record)
            for notice in sorted(set(outcome.notices) - said):
                on_notice(notice)
                said.add(notice)
            counts.done += 1
            counts.prompt_tokens += outcome.prompt_tokens
            counts.completion_tokens += outcome.completion_tokens
        on_row(counts)
        if strict and isinstance(outcome, RowError):
            raise FirstErrorError(
                f"row {outcome.number} failed: {outcome.reason}", "go on with --resume and without --strict"
            )
    return counts


def check_rows(
    rows: Iterator[BatchRow | RowError], prepared: PreparedModel, *, on_error: Callable[[RowError], None]
) -> BatchCounts:
    """See whether every row could be run, without the weights.

    Args:
        rows: As for `run_rows`.
        prepared: Gives the tokenizer, the settings and the cache's capacity.
        on_error: Called with each row that could not.

    Returns:
        How many rows are good and bad; tokens of prompts, none of texts.
    """
    counts = BatchCounts()
    for row in pending_rows(rows, (), counts):
        capacity = prepared.plan.cache.max_seq_len
        checked: Prompt | RowError
        if isinstance(row, BatchRow):
            checked = _encode(row, prepared.checkpoint, prepared.settings, capacity)
        else:
            checked = row
        if isinstance(checked, RowError):
            counts.failed += 1
            on_error(checked)
        else:
            counts.done += 1
            counts.prompt_tokens += len(checked.ids)
    return counts


def pending_rows(
    rows: Iterator[BatchRow | RowError], finished: Container[str], counts: BatchCounts
) -> Iterator[BatchRow | RowError]:
    """The rows that are still to be run; a second row of the same id is an error."""
    with IdIndex() as seen:
        for row in rows:
            unique = row if seen.add(row.key) else repeated(row)
            if unique.key in finished:
                counts.skipped += 1
            else:
                yield unique


@dataclass(frozen=True)
class _Done:
    """A row's record, what it took, and what should be known about its prompt."""

    record: dict[str, object]
    prompt_tokens: int
    completion_tokens: int
    notices: tuple[str, ...]


def _outcome(row: BatchRow, model: TextModel, seed: int) -> _Done | RowError:
    prompt = _encode(row, model.checkpoint, model.settings, model.plan.cache.max_seq_len)
    if isinstance(prompt, RowError):
        return prompt
    wanted: dict[str, Any] = {"seed": row_seed(seed, row.key), **row.settings}
    samples = wanted.pop("samples", model.settings.samples)
    try:
        generations = generate_samples(model, prompt, samples, **wanted)
    except LogitsError as error:
        return replace(_error(row, error), code=RowErrorCode.GENERATION_FAILED)
    except UsageError as error:
        return _error(row, error)
    record = success_record(row, generations, len(prompt.ids), wanted["seed"])
    completion_tokens = sum(len(generation.token_ids) for generation in generations)
    return _Done(record, len(prompt.ids), completion_tokens, prompt.notices)


def _encode(row: BatchRow, checkpoint: Checkpoint, settings: Settings, capacity: int) -> Prompt | RowError:
    try:
        in_force = override_with_arguments(settings, row.settings)
        prompt = encode_prompt(
            checkpoint, row.prompt, system=in_force.system, raw=in_force.raw, thinking=in_force.thinking
        )
        require_capacity(len(prompt.ids), in_force.max_tokens, capacity)
    except (UsageError, DoesNotFitError, MessagesRefusedError) as error:
        return _error(row, error)
    return prompt


def _error(row: BatchRow, error: MetalGenError) -> RowError:
    return RowError(row.number, row.id, row.key, row.form, error.message, row.carried)
