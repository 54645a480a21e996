"""The interface that generates rows, and its results. One implementation is local, one uses a cluster."""

from dataclasses import dataclass
from typing import Any, Protocol

from metal_gen.batch.input.rows import RowError


@dataclass(frozen=True)
class RowResult:
    """A finished row.

    Attributes:
        record: Its record.
        prompt_tokens: Number of prompt tokens.
        completion_tokens: Number of new tokens, or of tokens that were scored.
        notices: What a person should know about the prompt.
        cached_tokens: Number of prompt tokens that were read from the prefix cache.
    """

    record: dict[str, object]
    prompt_tokens: int
    completion_tokens: int
    notices: tuple[str, ...]
    cached_tokens: int = 0


Outcome = RowResult | RowError


class RowExecutor(Protocol):
    """Computes several rows concurrently."""

    @property
    def slots(self) -> int:
        """Number of texts that can be generated concurrently."""

    @property
    def slots_in_use(self) -> int:
        """Number of texts being generated now."""

    @property
    def occupancy(self) -> float:
        """Mean share of the slots in use so far, 0 to 1."""

    @property
    def has_room(self) -> bool:
        """Whether another row can be added now."""

    @property
    def is_idle(self) -> bool:
        """Whether no row is being generated."""

    def begin(self, row: Any, seed: int) -> RowError | None:
        """Add a row; `seed` applies if the row sets none. Return an error if the row cannot be run."""

    def advance(self) -> list[tuple[int, Outcome]]:
        """Advance all rows by one step; return the outcomes of finished rows with their row numbers."""
