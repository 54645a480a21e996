"""What a node of a cluster does: loads the model once, then generates blocks of rows."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import mlx.core as mx

from metal_gen import __version__
from metal_gen.batch.cluster.protocol import BlockReport, NodeTask, SeededRow, Value
from metal_gen.batch.executor import Outcome, RowExecutor
from metal_gen.batch.output.fingerprint import fingerprint
from metal_gen.device.backend import runs_on_cpu
from metal_gen.errors import UsageError
from metal_gen.generation.loading import PreparedModel, TextModel, prepare

# Complete rows wait for others to be reported with, but no longer than this.
REPORT_S = 0.05
# A node is heard of at least so often, complete rows or none.
SILENT_S = 0.5


def node_mark(prepared: PreparedModel) -> dict[str, Value]:
    """What texts depend on, and what has to be the same at all nodes.

    The name of the model is not: where a checkpoint lies may differ, what is in it may not.
    """
    backend = "CPU" if runs_on_cpu() else "Metal" if mx.metal.is_available() else "CUDA"
    versions: dict[str, Value] = {"metal-gen": __version__, "mlx": version("mlx"), "backend": backend}
    return versions | {k: v for k, v in fingerprint(prepared, None).items() if k != "model"}


def load_at_node(task: NodeTask) -> TextModel:
    """Load the model here.

    Raises:
        UsageError: Texts would not be the same here.
        MetalGenError: The model cannot be loaded here; see `prepare`.
    """
    prepared = prepare(task.settings, most_slots=task.most_slots)
    require_same(node_mark(prepared), task.mark)
    return prepared.load()


def require_same(here: Mapping[str, Value], there: Mapping[str, Value]) -> None:
    """See that a node gives the texts that the machine gives where the batch was begun.

    Raises:
        UsageError: Something differs, and what.
    """
    for name in there:
        if here.get(name) != there[name]:
            raise UsageError(
                f"its {name} is {here.get(name)!r}, and {there[name]!r} where the batch was begun"
            )


class BlockRunner:
    """Keeps the slots of a node busy with the rows that it has been given.

    Args:
        executor: Generates their texts.
    """

    def __init__(self, executor: RowExecutor) -> None:
        self._executor = executor
        self._waiting: deque[SeededRow] = deque()

    def work(self, rows: Sequence[SeededRow]) -> BlockReport:
        """Take rows, and go on with all until some are complete or a while has passed."""
        self._waiting.extend(rows)
        outcomes: list[tuple[int, Outcome]] = []
        begin_s = time.monotonic()
        while True:
            self._begin(outcomes)
            if self._executor.is_idle:
                break
            outcomes += self._executor.advance()
            passed_s = time.monotonic() - begin_s
            is_starving = not self._waiting and self._executor.has_room
            if passed_s >= SILENT_S or (outcomes and (is_starving or passed_s >= REPORT_S)):
                break
        return BlockReport(outcomes, self._executor.slots_in_use, self._executor.occupancy)

    def _begin(self, outcomes: list[tuple[int, Outcome]]) -> None:
        while self._waiting and self._executor.has_room:
            row, seed = self._waiting.popleft()
            if (failed := self._executor.begin(row, seed)) is not None:
                outcomes.append((row.number, failed))
