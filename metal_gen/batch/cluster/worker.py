"""The work of a cluster node: load the model once, then generate blocks of rows."""

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

# Finished rows wait this long at most to be reported together with others.
REPORT_S = 0.05
# A node reports at least this often, with or without finished rows.
SILENT_S = 0.5


def node_mark(prepared: PreparedModel) -> dict[str, Value]:
    """Return the values that texts depend on and that must be the same on all nodes.

    The model's name is left out: a checkpoint may be in different places, but its contents must be the same.
    """
    backend = "CPU" if runs_on_cpu() else "Metal" if mx.metal.is_available() else "CUDA"
    versions: dict[str, Value] = {"metal-gen": __version__, "mlx": version("mlx"), "backend": backend}
    return versions | {k: v for k, v in fingerprint(prepared, None).items() if k != "model"}


def load_at_node(task: NodeTask) -> TextModel:
    """Load the model on this node.

    Raises:
        UsageError: This node would generate different texts.
        MetalGenError: The model cannot be loaded; see `prepare`.
    """
    prepared = prepare(task.settings, most_slots=task.most_slots, scores=task.work.scores)
    require_same(node_mark(prepared), task.mark)
    return prepared.load()


def require_same(here: Mapping[str, Value], there: Mapping[str, Value]) -> None:
    """Check that a node generates the same texts as the machine that started the batch.

    Raises:
        UsageError: A value differs; the message names it.
    """
    for name in there:
        if here.get(name) != there[name]:
            raise UsageError(
                f"its {name} is {here.get(name)!r}, but the batch was started with {there[name]!r}"
            )


class BlockRunner:
    """Keeps the slots of a node busy with the rows it has received.

    Args:
        executor: Generates the texts.
    """

    def __init__(self, executor: RowExecutor) -> None:
        self._executor = executor
        self._waiting: deque[SeededRow] = deque()

    def work(self, rows: Sequence[SeededRow]) -> BlockReport:
        """Add rows and advance all of them until some finish or a time limit passes."""
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
