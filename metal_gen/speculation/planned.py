"""A source of guesses that has been checked, before any weights are read."""

from dataclasses import dataclass
from typing import Protocol

from metal_gen.models.transformer import Transformer
from metal_gen.speculation.source import GuessSource


@dataclass(frozen=True)
class GuessMemory:
    """The memory of a source of guesses.

    Attributes:
        fixed_bytes: Bytes for any cache size: weights, states, results of a pass.
        bytes_per_token: Bytes for each position of the target's cache.
        most_guesses: Most guesses in a pass.
        loading_bytes: Additional memory while weights are read, beyond `fixed_bytes`.
    """

    fixed_bytes: int
    bytes_per_token: int
    most_guesses: int
    loading_bytes: int = 0

    def nbytes(self, capacity: int) -> int:
        """Bytes beside a cache of so many tokens."""
        return self.fixed_bytes + self.bytes_per_token * capacity

    def __add__(self, other: "GuessMemory") -> "GuessMemory":
        return GuessMemory(
            self.fixed_bytes + other.fixed_bytes,
            self.bytes_per_token + other.bytes_per_token,
            max(self.most_guesses, other.most_guesses),
            max(self.loading_bytes, other.loading_bytes),
        )


class PlannedSource(Protocol):
    """A source of guesses whose settings and files have been checked.

    Attributes:
        memory: Memory that it takes.
    """

    @property
    def memory(self) -> GuessMemory:
        """See the class."""
        ...

    def load(self, target: Transformer, capacity: int, *, ahead_bytes: int | None = None) -> GuessSource:
        """Read its weights, and allocate what it needs beside a cache of so many tokens.

        Args:
            target: Model that draws the tokens.
            capacity: Number of tokens in its cache.
            ahead_bytes: Most memory of work that is queued ahead, if it is limited.
        """
        ...
