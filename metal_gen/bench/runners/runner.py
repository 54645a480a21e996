"""The interface through which every program is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class DecodeRun:
    """New tokens, and when the first and the last of them arrived.

    Attributes:
        tokens: Token ids, at least two.
        first_s: Time of the first token on the clock of `time.perf_counter`.
        last_s: Time of the last token on the same clock.
    """

    tokens: tuple[int, ...]
    first_s: float
    last_s: float

    @property
    def decode_tps(self) -> float:
        """Decode speed in tokens per second: (n - 1) / (t_last - t_first)."""
        return (len(self.tokens) - 1) / (self.last_s - self.first_s)


class Runner(Protocol):
    """A model in memory and the program that runs it, with greedy sampling and ignoring end tokens."""

    program: str

    def first_token_s(self, prompt: Sequence[int]) -> float:
        """Return the seconds from the prompt's ids to the first new id on the host, with an empty cache."""
        ...

    def decode(self, depth: int, count: int) -> DecodeRun:
        """Generate tokens after `depth` cached tokens that have not been computed.

        The cost of a step does not depend on the cache's contents, so the positions are only claimed.
        One token is computed first, as a prompt.
        """
        ...

    def greedy_tokens(self, prompt: Sequence[int], count: int) -> list[int]:
        """Return the greedy ids that follow a prompt."""
        ...

    def primitives(self, depth: int) -> int:
        """Return the number of operations in the graph of one decode step, sampling included."""
        ...
