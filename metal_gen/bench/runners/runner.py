"""What is measured of any program that generates text: an interface that each one is driven through."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class DecodeRun:
    """New tokens and when the first and the last of them had come.

    Attributes:
        tokens: Ids, at least two.
        first_s: On the clock of `time.perf_counter`.
        last_s: As `first_s`.
    """

    tokens: tuple[int, ...]
    first_s: float
    last_s: float

    @property
    def decode_tps(self) -> float:
        """(n - 1) / (t_last - t_first)."""
        return (len(self.tokens) - 1) / (self.last_s - self.first_s)


class Runner(Protocol):
    """A model in memory and the program that runs it, greedily and without regard to end tokens."""

    program: str

    def first_token_s(self, prompt: Sequence[int]) -> float:
        """Seconds from the prompt's ids to the first new token's id on the host, from an empty cache."""
        ...

    def decode(self, depth: int, count: int) -> DecodeRun:
        """Generate after `depth` tokens that stand in the cache without having been computed.

        What a cache holds does not change what a step costs, so its positions are only claimed.
        One token is computed first, as a prompt.
        """
        ...

    def greedy_tokens(self, prompt: Sequence[int], count: int) -> list[int]:
        """The ids that follow a prompt."""
        ...

    def primitives(self, depth: int) -> int:
        """Operations in the graph of one decode step, sampling included."""
        ...
