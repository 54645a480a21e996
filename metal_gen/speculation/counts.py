"""What came of the guesses of a text."""

from dataclasses import dataclass, field


@dataclass
class SpeculationCounts:
    """What came of the guesses of a text.

    Attributes:
        source: Where they came from.
        passes: Passes of the target model, and the one that ends the prompt.
        drafted: Number of guesses.
        accepted: Guesses that were the target's own tokens.
        tokens: Number of new tokens.
        by_depth: Number of passes with so many guesses.
    """

    source: str
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0
    by_depth: dict[int, int] = field(default_factory=dict)

    def copied(self) -> "SpeculationCounts":
        """Return the counts so far, which no longer change."""
        return SpeculationCounts(
            self.source, self.passes, self.drafted, self.accepted, self.tokens, dict(self.by_depth)
        )

    def add_pass(self, drafted: int, accepted: int) -> None:
        """Count a pass."""
        self.passes += 1
        self.by_depth[drafted] = self.by_depth.get(drafted, 0) + 1
        self.drafted += drafted
        self.accepted += accepted

    @property
    def tokens_per_pass(self) -> float:
        """Number of new tokens for each pass."""
        return self.tokens / self.passes if self.passes else 0.0
