"""Computes the log-probabilities of given tokens, of several texts at once over a fixed number of sequences.

A pass computes parts of the texts that have waited longest. What texts have in common at their beginnings is
computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from metal_gen.engine.scoring.head import target_logprobs
from metal_gen.engine.scoring.sequences import Sequences, in_common
from metal_gen.engine.slot_pass import PromptPart


@dataclass(eq=False)
class ScoreRequest:
    """Tokens whose log-probabilities are wanted.

    Attributes:
        shared: Token ids at the beginning, which other requests may have too; may be empty.
        own: Token ids after them, at least one.
        targets: Token ids. The first follows `own[skipped]`, and so on. If there are more targets than tokens
            that they follow, the rest are alternatives to the last token of the text.
        skipped: Number of tokens of `own` that are followed by no target.
        logprobs: Log-probabilities of the targets that have been computed.
    """

    shared: Sequence[int]
    own: Sequence[int]
    targets: Sequence[int]
    skipped: int = 0
    logprobs: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Number of tokens that are written to the cache."""
        return len(self.shared) + len(self.own)

    @property
    def is_complete(self) -> bool:
        """Whether all log-probabilities are there."""
        return len(self.logprobs) == len(self.targets)


@dataclass(eq=False)
class _Running:
    """A request in a sequence."""

    request: ScoreRequest
    slot: int
    shareable: Sequence[int]
    periods: mx.array

    def part(self, position: int, stride: int) -> Sequence[int]:
        """Return the tokens of the part that begins at a position."""
        request, before = self.request, len(self.request.shared)
        if position < before:
            return request.shared[position : min(position + stride, before)]
        return request.own[position - before : position - before + stride]


@dataclass
class _Pass:
    """Parts to compute, and the rows and targets of the tokens that are asked about."""

    parts: list[PromptPart] = field(default_factory=list)
    members: list[_Running] = field(default_factory=list)
    count: int = 0
    rows: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    owners: list[ScoreRequest] = field(default_factory=list)

    def add(self, running: _Running, tokens: Sequence[int], position: int) -> None:
        """Add a part."""
        request = running.request
        if running not in self.members:
            self.members.append(running)
        self.parts.append(PromptPart(running.slot, tokens, position))
        begin, self.count = self.count, self.count + len(tokens)
        before = len(request.shared) + request.skipped
        first, end = max(position, before), position + len(tokens)
        if first >= end:
            return
        targets = request.targets[first - before : end - before]
        rows = [*range(begin + first - position, self.count)]
        if end == request.length:
            others = request.targets[end - before :]
            targets, rows = [*targets, *others], rows + [rows[-1]] * len(others)
        self.rows += rows
        self.targets += targets
        self.owners += [request] * len(rows)


class Scorer:
    """Scores requests over sequences.

    Args:
        sequences: Sequences with their model.
        chunk_size: Tokens computed in one pass.
        block_rows: Rows whose logits are computed together.

    Attributes:
        slot_passes: Number of passes times number of sequences.
        busy_slot_passes: Sum over passes of the sequences in use.
        computed_tokens: Tokens that were computed rather than shared.
    """

    def __init__(self, sequences: Sequences, *, chunk_size: int, block_rows: int) -> None:
        self._sequences = sequences
        self._chunk_size = chunk_size
        self._block_rows = block_rows
        self._running: list[_Running] = []
        self.slot_passes = self.busy_slot_passes = self.computed_tokens = 0

    @property
    def slots(self) -> int:
        """Number of requests at once."""
        return self._sequences.count

    @property
    def in_use(self) -> int:
        """Number of requests that are being computed."""
        return len(self._running)

    @property
    def has_free_slot(self) -> bool:
        """Whether another request can begin."""
        return len(self._running) < self._sequences.count

    def begin(self, request: ScoreRequest) -> None:
        """Give a request a sequence; later passes compute it.

        Args:
            request: It has no more tokens than a sequence holds.
        """
        taken = {running.slot for running in self._running}
        slot = next(slot for slot in range(self._sequences.count) if slot not in taken)
        rope = self._sequences.model.rope
        # The last target is a token of the text too.
        periods = rope.periods(request.length + 1)
        shareable = request.shared if periods is rope.periods(1) else []
        self._sequences.begin(slot, shareable)
        self._running.append(_Running(request, slot, shareable, periods))

    def end(self, request: ScoreRequest) -> None:
        """Free the sequence of a request that is not wanted any more."""
        self._running = [running for running in self._running if running.request is not request]

    def step(self) -> list[ScoreRequest]:
        """Compute a pass and return the requests that it completes."""
        self.slot_passes += self._sequences.count
        self.busy_slot_passes += len(self._running)
        built = self._build()
        hidden = self._sequences.run(built.parts, built.members[0].request.length + 1)
        self.computed_tokens += built.count
        for running in built.members:
            self._sequences.hold(running.slot, running.shareable)
        if len(built.rows) != built.count or built.rows[-1] != built.count - 1:
            hidden = hidden[mx.array(built.rows, dtype=mx.int32)] if built.rows else hidden
        logprobs = target_logprobs(self._sequences.model, hidden, built.targets, self._block_rows)
        for owner, logprob in zip(built.owners, logprobs, strict=True):
            owner.logprobs.append(logprob)
        complete = [running.request for running in built.members if running.request.is_complete]
        for request in complete:
            self.end(request)
        return complete

    def _build(self) -> _Pass:
        """Choose the parts of the next pass."""
        sequences, built = self._sequences, _Pass()
        for running in self._running:
            if built.members and built.members[0].periods is not running.periods:
                continue
            sequences.extend(running.slot, running.shareable)
            position = sequences.position(running.slot)
            if any(
                in_common(other.shareable, running.shareable, sequences.stride) > position
                for other in built.members
            ):
                # Another text of this pass computes the same tokens, which are copied afterwards.
                continue
            if not self._add(running, position, built):
                break
        return built

    def _add(self, running: _Running, position: int, built: _Pass) -> bool:
        """Add the parts of a text that there is room for; return whether these are all."""
        while position < running.request.length:
            tokens = running.part(position, self._sequences.stride)
            if built.count and built.count + len(tokens) > self._chunk_size:
                return False
            built.add(running, tokens, position)
            position += len(tokens)
        return True
