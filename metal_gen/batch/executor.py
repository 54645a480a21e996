"""What rows are handed to, and what comes back: on this machine or on many."""

from dataclasses import dataclass
from typing import Protocol

from metal_gen.batch.input.rows import BatchRow, RowError


@dataclass(frozen=True)
class RowResult:
    """A row's record, what it took, and what should be known about its prompt."""

    record: dict[str, object]
    prompt_tokens: int
    completion_tokens: int
    notices: tuple[str, ...]


Outcome = RowResult | RowError


class RowExecutor(Protocol):
    """Generates the texts of several rows at once."""

    @property
    def slots(self) -> int:
        """Texts that can be under way at once."""

    @property
    def slots_in_use(self) -> int:
        """Texts that are under way."""

    @property
    def occupancy(self) -> float:
        """Share of the slots that had a part in a text so far, 0 to 1."""

    @property
    def has_room(self) -> bool:
        """Whether another row can be taken."""

    @property
    def is_idle(self) -> bool:
        """Whether no row is under way."""

    def begin(self, row: BatchRow, seed: int) -> RowError | None:
        """Take a row, with the seed for rows that name none; or say why it cannot be run."""

    def advance(self) -> list[tuple[int, Outcome]]:
        """Go on with all rows; returns those that are complete by that, by number."""
