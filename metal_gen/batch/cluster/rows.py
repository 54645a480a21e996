"""Distributes rows over the nodes of a cluster, and redistributes the rows of a lost node."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from metal_gen.batch.cluster.protocol import BlockReport, Cluster, Message, NodeLost, NodeReady, NodeRefusal
from metal_gen.batch.executor import Outcome
from metal_gen.batch.input.encoding import failed_row
from metal_gen.batch.input.rows import Row, RowError, RowErrorCode
from metal_gen.errors import MetalGenError

# Rows per slot that a node holds: one in the slot, one to start before the next message arrives.
IN_HAND_PER_SLOT = 2
# One call is being computed; the node starts the second one before the first report has been read.
MOST_CALLS = 2
# A row that was on this many lost nodes is not tried again: it may be the cause.
MOST_LOSSES = 3
LOOK_INTERVAL_S = 10.0
WAIT_S = 0.5


class ClusterLostError(MetalGenError):
    """No usable node is left."""


@dataclass
class _Held:
    """A row without an outcome."""

    row: Row
    seed: int
    losses: int = 0


@dataclass
class _Node:
    """A node that runs a process of this batch.

    Attributes:
        slots: Number of slots; 0 until the model is loaded.
        in_hand: The node's rows, by row number.
        calls: Number of calls without a report.
    """

    slots: int = 0
    in_hand: dict[int, _Held] = field(default_factory=dict)
    calls: int = 0
    slots_in_use: int = 0
    occupancy: float = 0.0

    @property
    def room(self) -> int:
        """Number of rows that the node can receive now."""
        return self.slots * IN_HAND_PER_SLOT - len(self.in_hand) if self.calls < MOST_CALLS else 0


class ClusterRows:
    """Generates the texts of rows on the nodes of a cluster.

    Args:
        cluster: Sends and receives the messages.
        on_news: Called with messages about nodes for the user.
    """

    def __init__(self, cluster: Cluster, *, on_news: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._on_news = on_news
        self._nodes: dict[str, _Node] = {}
        self._waiting: deque[_Held] = deque()
        self._why_not = "no node has a free CPU"
        self._next_look_s = 0.0

    @property
    def slots(self) -> int:
        """Number of texts that can be generated concurrently; 1 while no node is ready."""
        return sum(node.slots for node in self._nodes.values()) or 1

    @property
    def slots_in_use(self) -> int:
        """Number of texts being generated now."""
        return sum(node.slots_in_use for node in self._nodes.values())

    @property
    def occupancy(self) -> float:
        """Mean share of the slots in use so far, 0 to 1."""
        return sum(node.occupancy * node.slots for node in self._nodes.values()) / self.slots

    @property
    def has_room(self) -> bool:
        """Whether another row can be added now."""
        return len(self._waiting) < max(1, sum(node.room for node in self._nodes.values()))

    @property
    def is_idle(self) -> bool:
        """Whether no row is being generated."""
        return not self._waiting and not any(node.in_hand for node in self._nodes.values())

    def begin(self, row: Row, seed: int) -> RowError | None:
        """Add a row; `seed` applies if the row sets none. The node reports whether the row can be run."""
        self._waiting.append(_Held(row, seed))
        return None

    def advance(self) -> list[tuple[int, Outcome]]:
        """Distribute rows and wait for a node; return the outcomes of finished rows with their row numbers.

        Raises:
            ClusterLostError: No node is left.
        """
        if time.monotonic() >= self._next_look_s:
            self._look_for_nodes()
        self._hand_out()
        outcomes: list[tuple[int, Outcome]] = []
        for name, message in self._cluster.receive(WAIT_S):
            outcomes += self._take(name, message)
        if not self._nodes:
            self._look_for_nodes()
        if not self._nodes:
            raise ClusterLostError(
                f"the cluster has no usable node left: {self._why_not}",
                "continue with --resume once a node is available",
            )
        return outcomes

    def _look_for_nodes(self) -> None:
        self._next_look_s = time.monotonic() + LOOK_INTERVAL_S
        started = self._cluster.start_workers()
        self._nodes.update((name, _Node()) for name in started)
        if started:
            self._on_news(f"loading the model at {', '.join(started)}")

    def _hand_out(self) -> None:
        """Send rows to the nodes, starting with the one that has most room."""
        for name, node in sorted(self._nodes.items(), key=lambda pair: -pair[1].room):
            rows = [self._waiting.popleft() for _ in range(min(node.room, len(self._waiting)))]
            node.in_hand.update((held.row.number, held) for held in rows)
            while node.calls < MOST_CALLS and node.in_hand:
                self._cluster.send(name, [(held.row, held.seed) for held in rows])
                node.calls += 1
                rows = []

    def _take(self, name: str, message: Message) -> list[tuple[int, Outcome]]:
        node = self._nodes[name]
        if isinstance(message, BlockReport):
            node.calls -= 1
            node.slots_in_use, node.occupancy = message.slots_in_use, message.occupancy
            for number, _ in message.outcomes:
                del node.in_hand[number]
            return list(message.outcomes)
        if isinstance(message, NodeReady):
            node.slots = message.slots
            self._on_news(f"node {name} is ready: {message.slots} slots, {message.device}")
            return []
        del self._nodes[name]
        if isinstance(message, NodeRefusal):
            self._why_not = f"node {name} cannot take part: {message.reason}"
            self._on_news(self._why_not)
            return []
        return self._lose(name, node, message)

    def _lose(self, name: str, node: _Node, lost: NodeLost) -> list[tuple[int, Outcome]]:
        """Put the rows of a lost node back at the front of the queue."""
        self._why_not = f"node {name} is lost: {lost.reason}"
        self._on_news(f"{self._why_not}; its {len(node.in_hand)} rows will be run again")
        outcomes: list[tuple[int, Outcome]] = []
        for held in reversed(node.in_hand.values()):
            held.losses += 1
            if held.losses < MOST_LOSSES:
                self._waiting.appendleft(held)
            else:
                error = MetalGenError(f"{MOST_LOSSES} nodes were lost while they held this row")
                outcomes.append(
                    (held.row.number, failed_row(held.row, error, RowErrorCode.GENERATION_FAILED))
                )
        return outcomes
