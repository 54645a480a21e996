"""What the machine that holds the input and the nodes that generate say to each other.

Knows nothing of Ray, which carries it, nor of MLX.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from metal_gen.batch.executor import Outcome
from metal_gen.batch.input.rows import BatchRow
from metal_gen.config.settings import Settings

Value = str | int | None


@dataclass(frozen=True)
class NodeTask:
    """What a node is to load before rows come.

    Attributes:
        settings: Of the run.
        most_slots: Texts at once, where the settings leave that open and the node's memory allows it.
        mark: What texts depend on; a node where any of it differs may not take part.
    """

    settings: Settings
    most_slots: int
    mark: Mapping[str, Value]


@dataclass(frozen=True)
class NodeReady:
    """A node has its model in memory.

    Attributes:
        slots: Texts that it can generate at once.
        device: As a person would name it.
    """

    slots: int
    device: str


@dataclass(frozen=True)
class NodeRefusal:
    """A node cannot take part, and why; it is not asked again."""

    reason: str


@dataclass(frozen=True)
class NodeLost:
    """A node's process has ended, or cannot be reached any more, and why."""

    reason: str


@dataclass(frozen=True)
class BlockReport:
    """How far a node is.

    Attributes:
        outcomes: Of rows that are complete since its last report, by their numbers.
        slots_in_use: Texts that are under way.
        occupancy: Share of its slots that had a part in a text so far, 0 to 1.
    """

    outcomes: Sequence[tuple[int, Outcome]]
    slots_in_use: int
    occupancy: float


Message = NodeReady | NodeRefusal | NodeLost | BlockReport
SeededRow = tuple[BatchRow, int]


class Cluster(Protocol):
    """Machines that each have a process of this run."""

    def start_workers(self) -> Sequence[str]:
        """Start a process at every node that has none and can have one; returns the nodes' names.

        Each says `NodeReady` or `NodeRefusal`, unless it is lost.
        """

    def send(self, node: str, rows: Sequence[SeededRow]) -> None:
        """Give a node rows, and have it go on with those that it has; it says `BlockReport` then."""

    def receive(self, timeout_s: float) -> Sequence[tuple[str, Message]]:
        """Wait until a node says something; returns what nodes have said, perhaps nothing.

        Of a node that has refused or is lost nothing comes any more.
        """
