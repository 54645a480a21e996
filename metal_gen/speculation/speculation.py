"""Speculation over the texts of one model: its source of guesses, their depths, and what came of them."""

from collections.abc import Callable, Sequence

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.speculation.counts import SpeculationCounts
from metal_gen.speculation.depth import Depths
from metal_gen.speculation.source import GuessSource


class Speculation:
    """Guesses for the texts of one model, one text at a time.

    Args:
        source: Source of guesses.
        depths: Chooses how many guesses to make.
        rows_apart: Whether to verify tokens one after another; by default on a CPU.

    Attributes:
        counts: Counts of the current text.
    """

    def __init__(self, source: GuessSource, depths: Depths, *, rows_apart: bool | None = None) -> None:
        self.source = source
        self.depths = depths
        self.rows_apart = runs_on_cpu() if rows_apart is None else rows_apart
        self.counts = SpeculationCounts(source.name)
        self._given = 0

    @property
    def takes_hidden(self) -> Callable[[mx.array], None] | None:
        """Takes the hidden states of the prompt; None if they are not needed."""
        return self.source.prefilled if self.source.needs_hidden else None

    def begin(self, prompt: Sequence[int], kept: int) -> None:
        """Begin with another prompt; see `GuessSource.begin`."""
        self.source.begin(prompt, kept)
        self._given = 0

    def begin_text(self) -> None:
        """Begin a text after the prompt, perhaps after another one."""
        self.source.take_back(self._given)
        self._given = 0
        self.counts = SpeculationCounts(self.source.name)

    def end_text(self) -> None:
        """Note that a text has ended."""
        self.source.end_text()
        self.depths.end_text()

    def add(self, tokens: Sequence[int], hidden: mx.array | None) -> None:
        """Add tokens to the text; see `GuessSource.accepted`."""
        self.source.accepted(tokens, hidden)
        self._given += len(tokens)
        self.counts.tokens += len(tokens)
