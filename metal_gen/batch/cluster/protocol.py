"""The messages between the machine that reads the input and the nodes that generate.

This module does not know Ray, which carries the messages, or MLX.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from metal_gen.batch.executor import Outcome
from metal_gen.batch.input.rows import Row
from metal_gen.batch.work import RowWork
from metal_gen.config.settings import Settings

Value = str | int | None


@dataclass(frozen=True)
class NodeTask:
    """What a node loads before it receives rows.

    Attributes:
        settings: Settings of the run.
        most_slots: Maximum number of slots, if the settings do not fix it; the node's memory may allow fewer.
        mark: The values that texts depend on; a node with any different value is refused.
        work: The kind of work to do with rows.
    """

    settings: Settings
    most_slots: int
    mark: Mapping[str, Value]
    work: RowWork


@dataclass(frozen=True)
class NodeReady:
    """The node has loaded its model.

    Attributes:
        slots: Number of texts that the node can generate concurrently.
        device: Human-readable name of the device.
    """

    slots: int
    device: str


@dataclass(frozen=True)
class NodeRefusal:
    """The node cannot take part, with the reason; it is not asked again."""

    reason: str


@dataclass(frozen=True)
class NodeLost:
    """The node's process has ended or cannot be reached, with the reason."""

    reason: str


@dataclass(frozen=True)
class BlockReport:
    """Progress of a node.

    Attributes:
        outcomes: The rows finished since the last report, with their row numbers.
        slots_in_use: Number of texts being generated now.
        occupancy: Mean share of the node's slots in use so far, 0 to 1.
    """

    outcomes: Sequence[tuple[int, Outcome]]
    slots_in_use: int
    occupancy: float


Message = NodeReady | NodeRefusal | NodeLost | BlockReport
SeededRow = tuple[Row, int]


class Cluster(Protocol):
    """Machines that each run a process of this batch."""

    def start_workers(self) -> Sequence[str]:
        """Start a process on every usable node that has none; return the names of these nodes.

        Each node answers with `NodeReady` or `NodeRefusal`, unless it is lost.
        """

    def send(self, node: str, rows: Sequence[SeededRow]) -> None:
        """Send rows to a node, which adds them to those it has and answers with a `BlockReport`."""

    def receive(self, timeout_s: float) -> Sequence[tuple[str, Message]]:
        """Wait for messages from nodes and return those received, perhaps none.

        A node that has refused or is lost sends no further messages.
        """
