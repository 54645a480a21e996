"""Several sources of guesses beside each other: the first that has a guess is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import mlx.core as mx

from metal_gen.models.transformer import Transformer
from metal_gen.speculation.planned import GuessMemory, PlannedSource
from metal_gen.speculation.source import GuessDraw, Guesses, GuessSource, Room, RunningPass, Wanted


class Together:
    """Implements `GuessSource`.

    Args:
        sources: Sources, the one to ask first at the beginning.
    """

    def __init__(self, sources: Sequence[GuessSource]) -> None:
        self._sources = sources
        self.name = "+".join(source.name for source in sources)
        self.needs_hidden = any(source.needs_hidden for source in sources)

    @property
    def compiled_count(self) -> int:
        """See `GuessSource`."""
        return sum(source.compiled_count for source in self._sources)

    def begin(self, prompt: Sequence[int], kept: int) -> None:
        """See `GuessSource`."""
        for source in self._sources:
            source.begin(prompt, kept)

    def prefilled(self, hidden: mx.array) -> None:
        """See `GuessSource`."""
        for source in self._sources:
            source.prefilled(hidden)

    def expects(self, wanted: Wanted) -> bool:
        """See `GuessSource`."""
        return any(source.expects(wanted) for source in self._sources)

    def guess(self, room: Room, draw: GuessDraw) -> Guesses | None:
        """See `GuessSource`."""
        guesses = (source.guess(room, draw) for source in self._sources)
        return next((each for each in guesses if each is not None), None)

    def guess_after(self, running: RunningPass, choose: Room) -> None:
        """See `GuessSource`."""
        for source in self._sources:
            source.guess_after(running, choose)

    def accepted(self, tokens: Sequence[int], hidden: mx.array | None) -> None:
        """See `GuessSource`."""
        for source in self._sources:
            source.accepted(tokens, hidden)

    def take_back(self, count: int) -> None:
        """See `GuessSource`."""
        for source in self._sources:
            source.take_back(count)

    def end_text(self) -> None:
        """See `GuessSource`."""
        for source in self._sources:
            source.end_text()


@dataclass(frozen=True)
class PlannedTogether:
    """Implements `PlannedSource`."""

    sources: Sequence[PlannedSource]

    @property
    def memory(self) -> GuessMemory:
        """Memory of all sources."""
        return reduce(add, [source.memory for source in self.sources])

    def load(self, target: Transformer, capacity: int, *, ahead_bytes: int | None = None) -> Together:
        """Load all sources."""
        return Together([source.load(target, capacity, ahead_bytes=ahead_bytes) for source in self.sources])
