"""Speculation over the texts of one model: its source of guesses, their depths, and what came of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.speculation.depth import Depths
from metal_gen.speculation.source import GuessSource


@dataclass
class SpeculationCounts:
    """What came of the guesses of a text.

    Attributes:
        source: Where they came from.
        passes: Passes of the target model, and the one that ends the prompt.
        drafted: Number of guesses.
        accepted: Guesses that were the target's own tokens.
        tokens: Number of new tokens.
    """

    source: str
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0

    def add_pass(self, drafted: int, accepted: int) -> None:
        """Count a pass."""
        self.passes += 1
        self.drafted += drafted
        self.accepted += accepted

    @property
    def tokens_per_pass(self) -> float:
        """Number of new tokens for each pass."""
        return self.tokens / self.passes if self.passes else 0.0


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

    def begin(self, prompt: Sequence[int], kept: int) -> None:
        """Begin with another prompt; see `GuessSource.begin`."""
        self.source.begin(prompt, kept)
        self._given = 0

    def begin_text(self) -> None:
        """Begin a text after the prompt, perhaps after another one."""
        self.source.take_back(self._given)
        self._given = 0
        self.counts = SpeculationCounts(self.source.name)

    def add(self, tokens: Sequence[int], hidden: mx.array | None) -> None:
        """Add tokens to the text; see `GuessSource.accepted`."""
        self.source.accepted(tokens, hidden)
        self._given += len(tokens)
        self.counts.tokens += len(tokens)
