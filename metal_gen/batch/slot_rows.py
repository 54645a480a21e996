"""Generates rows on this machine: one slot per sample; a row's record is built when all samples are done."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from metal_gen.batch.executor import Outcome, RowResult
from metal_gen.batch.input.encoding import RowEncoder, failed_row
from metal_gen.batch.input.rows import BatchRow, RowError, RowErrorCode
from metal_gen.batch.records import success_record
from metal_gen.batch.text_slots import TextSlots
from metal_gen.batch.token_texts import TokenTexts
from metal_gen.config.settings import Settings
from metal_gen.config.sources import override_with_arguments
from metal_gen.device.backend import prompt_stride, runs_on_cpu
from metal_gen.device.extra_memory import limited_extra_memory
from metal_gen.engine.generator import GeneratedToken
from metal_gen.engine.slots.slot_decoder import SlotDecoder
from metal_gen.engine.slots.slot_text import SlotText
from metal_gen.engine.stopping import FinishDetail
from metal_gen.errors import DoesNotFitError, MetalGenError, NoAnswerError, UsageError
from metal_gen.generation.guides.guide import TextGuide
from metal_gen.generation.guides.making import guide_for, require_room
from metal_gen.generation.loading import TextModel
from metal_gen.generation.pieces import Clock, Generation, Piece, join
from metal_gen.generation.strategy_settings import endings_from, strategy_from
from metal_gen.generation.text_assembly import TextAssembly
from metal_gen.models.rows.independence import rows_computed, with_independent_rows
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.text.encoded_prompt import Prompt

if TYPE_CHECKING:
    from metal_gen.batch.slot_prefixes import SlotPrefixes


@dataclass(eq=False)
class _Job:
    """A row being generated."""

    row: BatchRow
    prompt: Prompt
    settings: Settings
    seed: int
    strategy: SamplingStrategy
    endings: dict[int, FinishDetail]
    guides: Sequence[TextGuide | None]
    generations: dict[int, Generation] = field(default_factory=dict)
    failure: RowError | None = None
    notices: tuple[str, ...] = ()
    cached_tokens: int = 0

    @property
    def is_complete(self) -> bool:
        return self.failure is not None or len(self.generations) == self.settings.samples

    def result(self, tokens: TokenTexts) -> Outcome:
        if self.failure is not None:
            return self.failure
        generations = [self.generations[sample] for sample in range(self.settings.samples)]
        record = success_record(self.row, generations, len(self.prompt.ids), self.seed, tokens)
        for generation in generations:
            if (failure := generation.shortcoming) is not None:
                code = (
                    RowErrorCode.NO_ANSWER if isinstance(failure, NoAnswerError) else RowErrorCode.INCOMPLETE
                )
                return replace(failed_row(self.row, failure, code), given=record)
        completion_tokens = sum(len(generation.token_ids) for generation in generations)
        notices = (*self.prompt.notices, *self.notices)
        return RowResult(record, len(self.prompt.ids), completion_tokens, notices, self.cached_tokens)


@dataclass
class _Sample:
    """One sample of a row, in a slot."""

    job: _Job
    number: int
    assembly: TextAssembly
    clock: Clock
    pieces: list[Piece] = field(default_factory=list)


@contextmanager
def slot_rows(model: TextModel) -> "Iterator[SlotRows]":
    """Open the slots of a model; MLX may allocate no more memory than planned."""
    with limited_extra_memory(model.plan.ahead_bytes):
        yield SlotRows(model)


class SlotRows:
    """Generates the texts of several rows concurrently on this machine.

    Args:
        model: The model; its cache has one slot per concurrent text.

    Attributes:
        slots: Number of texts that can be generated concurrently.
        decoder: The slots.
    """

    def __init__(self, model: TextModel) -> None:
        self.slots = model.plan.cache.batch_size
        self._model = model
        self.decoder, self._prefixes = _open_slots(model)
        self._encoder = RowEncoder(model.checkpoint, model.settings, model.plan)
        self._tokens = TokenTexts(model.checkpoint.tokenizer)
        self._queue: deque[tuple[_Job, int]] = deque()
        self._running: dict[SlotText, _Sample] = {}

    @property
    def rows_per_step(self) -> int:
        """Number of batch rows computed in each decode step.

        Exceeds the number of slots if a smaller batch would give different results.
        """
        return rows_computed(self.decoder.model, self.slots)

    @property
    def slots_in_use(self) -> int:
        """Number of texts being generated now."""
        return self.decoder.in_use

    @property
    def occupancy(self) -> float:
        """Mean share of the slots in use so far, 0 to 1."""
        passes = self.decoder.slot_passes
        return self.decoder.busy_slot_passes / passes if passes else 0.0

    @property
    def has_room(self) -> bool:
        """Whether another row could begin now."""
        return self.decoder.has_free_slot and not self._queue

    @property
    def is_idle(self) -> bool:
        """Whether no row is being generated."""
        return not self._running and not self._queue

    def begin(self, row: BatchRow, seed: int) -> RowError | None:
        """Begin a row; `seed` applies if the row sets none. Return an error if the row cannot be run."""
        model = self._model
        prompt = self._encoder.encode(row)
        if isinstance(prompt, RowError):
            return prompt
        wanted: dict[str, Any] = {"seed": seed, **row.settings}
        try:
            settings = override_with_arguments(model.settings, wanted)
            if settings.break_loops is None:
                # A batch runs unattended, so nobody could end them.
                settings = settings.override({"break_loops": True}, "a batch")
            tokenizer, eos_ids = model.checkpoint.tokenizer, model.checkpoint.eos_ids
            strategy = strategy_from(settings, tokenizer, eos_ids)
            endings = endings_from(settings, tokenizer, eos_ids)
            require_room(model.plan, settings)
            guides = [guide_for(model.checkpoint, prompt, settings) for _ in range(settings.samples)]
        except DoesNotFitError as error:
            return failed_row(row, error, RowErrorCode.DOES_NOT_FIT)
        except UsageError as error:
            return failed_row(row, error)
        job = _Job(row, prompt, settings, wanted["seed"], strategy, endings, guides)
        self._queue.extend((job, sample) for sample in range(settings.samples))
        self._fill()
        return None

    def advance(self) -> list[tuple[int, Outcome]]:
        """Decode one token of every text; return the outcomes of finished rows with their row numbers."""
        ended = []
        for text, token in self.decoder.step():
            sample = self._running.get(text)
            if sample is not None and self._take(text, sample, token):
                ended.append(sample.job)
        self._fill()
        return [(job.row.number, job.result(self._tokens)) for job in dict.fromkeys(ended) if job.is_complete]

    def _fill(self) -> None:
        while self._queue and self.decoder.has_free_slot:
            self._start(*self._queue.popleft())

    def _start(self, job: _Job, number: int) -> None:
        ids, settings = job.prompt.ids, job.settings
        sampler = Sampler(
            job.strategy,
            RandomKeys(job.seed, number),
            prompt=ids,
            capacity=self.decoder.capacity,
            ending_ids=job.endings,
            logprobs=settings.logprobs,
        )
        clock = Clock(prompt_tokens=len(ids), computed_tokens=0, seed=job.seed)
        guide = job.guides[number]
        tokenizer = self._model.checkpoint.tokenizer
        assembly = TextAssembly(tokenizer, job.prompt, settings, number, clock, guide)
        text = self.decoder.begin(
            ids, sampler, endings=job.endings, max_tokens=settings.max_tokens, guide=guide
        )
        self._running[text] = _Sample(job, number, assembly, clock)
        if self._prefixes is not None:
            job.cached_tokens += self._prefixes.begin(text, job.prompt)

    def _take(self, text: SlotText, sample: _Sample, token: GeneratedToken | MetalGenError) -> bool:
        """Add a token to its sample; return whether the row may be complete now."""
        job = sample.job
        if isinstance(token, MetalGenError):
            job.failure = failed_row(job.row, token, RowErrorCode.GENERATION_FAILED)
            self._give_up(job)
            return True
        if self._model.speculation is not None:
            sample.clock.speculation = self._model.speculation.counts
        piece = sample.assembly.add(token, self.decoder.position(text))
        sample.pieces.append(piece)
        if self._prefixes is not None and len(sample.pieces) == 1:
            self._prefixes.first_token(text, job.prompt)
            job.notices += self._prefixes.take_notices()
        if not piece.finish:
            return False
        self.decoder.end(text)
        del self._running[text]
        job.generations[sample.number] = join(sample.pieces)
        return True

    def _give_up(self, job: _Job) -> None:
        """Stop all samples of a row."""
        self._queue = deque(pair for pair in self._queue if pair[0] is not job)
        for text in [text for text, sample in self._running.items() if sample.job is job]:
            self.decoder.end(text)
            del self._running[text]


def _open_slots(model: TextModel) -> "tuple[TextSlots, SlotPrefixes | None]":
    """Open the slots of a model, with their prefix cache if it is on; or the only slot, with guesses."""
    if model.speculation is not None:
        from metal_gen.batch.guessing_slot import GuessingSlot

        return GuessingSlot(model.decoder, model.speculation), None
    transformer = model.decoder.model
    decoder = SlotDecoder(
        with_independent_rows(transformer) if runs_on_cpu() else transformer,
        model.decoder.cache,
        chunk_size=model.plan.chunk_size,
        stride=prompt_stride(),
        compiles=model.compiles,
    )
    # States of linear attention are not stored for slots.
    if not model.settings.prefix_cache or model.checkpoint.config.linear is not None:
        return decoder, None
    from metal_gen.batch.slot_prefixes import SlotPrefixes

    return decoder, SlotPrefixes(model, decoder.slots)
