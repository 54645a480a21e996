"""Scores rows, each request of a row in a slot."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from metal_gen.batch.executor import Outcome
from metal_gen.batch.input.encoding import failed_row
from metal_gen.batch.input.rows import Row, RowError, RowErrorCode
from metal_gen.batch.scoring.jobs import Job
from metal_gen.device.backend import prompt_stride, runs_on_cpu
from metal_gen.device.extra_memory import limited_extra_memory
from metal_gen.engine.scoring.scorer import Scorer, ScoreRequest
from metal_gen.engine.scoring.sequences import OneSequence, Sequences, SlotSequences
from metal_gen.errors import DoesNotFitError, MetalGenError
from metal_gen.generation.loading import TextModel
from metal_gen.models.rows.independence import whole_product_rows, with_independent_rows
from metal_gen.sampling.logits_error import LogitsError


@contextmanager
def scoring_rows(model: TextModel, open_job: Callable[[Any], Job]) -> "Iterator[ScoringRows]":
    """Open the slots of a model, with MLX limited to the planned memory.

    Args:
        model: Its cache has a slot for each text at a time.
        open_job: Begins a row, or raises MetalGenError.
    """
    with open_scorer(model) as scorer:
        yield ScoringRows(scorer, open_job)


@contextmanager
def open_scorer(model: TextModel) -> Iterator[Scorer]:
    """Open a scorer over the slots of a model, with MLX limited to the planned memory."""
    plan = model.plan
    model.checkpoint.tokenizer.expect_many_texts()
    with limited_extra_memory(plan.ahead_bytes):
        sequences = _sequences(model)
        rows = whole_product_rows(sequences.model.head, plan.logits_rows)
        yield Scorer(sequences, chunk_size=plan.chunk_size, block_rows=rows)


def score_all(scorer: Scorer, requests: Iterator[ScoreRequest]) -> Iterator[ScoreRequest]:
    """Yield requests as they are complete, in any order."""
    is_over = False
    while True:
        while scorer.has_free_slot and not is_over:
            request = next(requests, None)
            if request is None:
                is_over = True
            else:
                scorer.begin(request)
        if not scorer.in_use:
            return
        yield from scorer.step()


def _sequences(model: TextModel) -> Sequences:
    transformer, cache = model.decoder.model, model.decoder.cache
    if transformer.config.linear is not None:
        return OneSequence(transformer, cache, model.plan.chunk_size)
    steady = with_independent_rows(transformer) if runs_on_cpu() else transformer
    return SlotSequences(steady, cache, min(prompt_stride(), model.plan.chunk_size))


class ScoringRows:
    """Scores several rows at once, on this machine.

    Args:
        scorer: Computes the requests.
        open_job: Begins a row, or raises MetalGenError.

    Attributes:
        slots: Number of requests at once.
    """

    def __init__(self, scorer: Scorer, open_job: Callable[[Any], Job]) -> None:
        self.slots = scorer.slots
        self._scorer = scorer
        self._open_job = open_job
        # Rows with requests that have not begun.
        self._queue: deque[Job] = deque()
        self._owners: dict[ScoreRequest, Job] = {}
        self._ended: list[tuple[int, Outcome]] = []

    @property
    def slots_in_use(self) -> int:
        """Number of requests that are being computed."""
        return self._scorer.in_use

    @property
    def occupancy(self) -> float:
        """Mean share of the slots in use so far, 0 to 1."""
        passes = self._scorer.slot_passes
        return self._scorer.busy_slot_passes / passes if passes else 0.0

    @property
    def has_room(self) -> bool:
        """Whether another row could begin at once."""
        return self._scorer.has_free_slot and not self._queue

    @property
    def is_idle(self) -> bool:
        """Whether no row is being scored."""
        return not (self._queue or self._owners or self._ended)

    def begin(self, row: Row, seed: int) -> RowError | None:
        """Add a row; nothing is drawn, and the seed has no effect. Return an error if it cannot be scored."""
        try:
            self._queue.append(self._open_job(row))
        except MetalGenError as error:
            return _failed(row, error)
        self._fill()
        return None

    def advance(self) -> list[tuple[int, Outcome]]:
        """Compute a pass; return the outcomes of finished rows with their row numbers."""
        for request in self._scorer.step() if self._owners else ():
            job = self._owners.pop(request)
            try:
                job.take(request)
            except LogitsError as error:
                self._fail(job, error)
            else:
                self._end_if_complete(job)
        self._fill()
        ended, self._ended = self._ended, []
        return ended

    def _fill(self) -> None:
        """Begin requests while there are free slots."""
        while self._queue and self._scorer.has_free_slot:
            job = self._queue[0]
            try:
                request = next(job.requests, None)
            except MetalGenError as error:
                self._fail(job, error)
                continue
            if request is None:
                self._queue.popleft()
                self._end_if_complete(job)
            else:
                self._owners[request] = job
                self._scorer.begin(request)

    def _end_if_complete(self, job: Job) -> None:
        if job not in self._queue and job not in self._owners.values():
            self._ended.append((job.row.number, job.result()))

    def _fail(self, job: Job, error: MetalGenError) -> None:
        """Give up all requests of a row."""
        if job in self._queue:
            self._queue.remove(job)
        for request in [request for request, owner in self._owners.items() if owner is job]:
            del self._owners[request]
            self._scorer.end(request)
        self._ended.append((job.row.number, _failed(job.row, error)))


def _failed(row: Row, error: MetalGenError) -> RowError:
    code = RowErrorCode.INVALID_REQUEST
    if isinstance(error, DoesNotFitError):
        code = RowErrorCode.DOES_NOT_FIT
    elif isinstance(error, LogitsError):
        code = RowErrorCode.GENERATION_FAILED
    return failed_row(row, error, code)
