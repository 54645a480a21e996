"""The cost of a constraint: decode speed with and without one, and the time to find the allowed tokens."""

import time
from collections.abc import Sequence

import mlx.core as mx

from metal_gen.bench.measurement import METAL_GEN, Measurement, Trial, Unit
from metal_gen.bench.request import CONSTRAINT
from metal_gen.bench.runners.engine import EngineRunner
from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.matcher import GrammarMatcher
from metal_gen.constraints.token_table import TokenTable
from metal_gen.engine.stopping import FinishDetail
from metal_gen.errors import MetalGenError

# A text that is long enough for any number of tokens, and of which none is forced.
ENDLESS = Constraint.schema({"type": "string", "minLength": 1_000_000})


class TimedGuide:
    """Guides a text through the grammar of `ENDLESS`, and sums up the time that this takes."""

    error: MetalGenError | None = None

    def __init__(self, table: TokenTable) -> None:
        self._matcher = GrammarMatcher(table, ENDLESS)
        self.seconds = 0.0
        self.masks = 0

    def accept(self, token: int) -> FinishDetail | None:
        """Record a token."""
        begin = time.perf_counter()
        self._matcher.accept(token)
        self.seconds += time.perf_counter() - begin
        return None

    def take_back(self, count: int) -> None:
        """Take back the last tokens."""
        self._matcher.take_back(count)

    def forced(self) -> Sequence[int]:
        """Force nothing: what is measured is one token at a time."""
        return ()

    def allowed(self) -> mx.array | None:
        """Return the tokens that may come next."""
        begin = time.perf_counter()
        bits = self._matcher.allowed()
        self.seconds += time.perf_counter() - begin
        self.masks += 1
        return bits


def constraint_trials(runner: EngineRunner, table: TokenTable, depth: int, count: int) -> list[Trial]:
    """Return trials without and with a constraint, to be run in turn.

    Args:
        runner: Its cache must hold the depth and the new tokens.
        table: Tokens of the model.
        depth: Number of tokens before the new ones.
        count: Number of new tokens, at least two.
    """
    table.build()
    where = {"depth": depth}
    speeds = [
        Measurement(CONSTRAINT, name, Unit.TOKENS_PER_SECOND, METAL_GEN, where)
        for name in ("free_tps", "constrained_tps")
    ]
    mask = Measurement(CONSTRAINT, "mask", Unit.MICROSECONDS, METAL_GEN, where)

    def constrained() -> tuple[float, ...]:
        guide = TimedGuide(table)
        tps = runner.decode_guided(depth, count, guide).decode_tps
        return tps, 1e6 * guide.seconds / guide.masks

    return [
        Trial((speeds[0],), lambda: (runner.decode(depth, count).decode_tps,)),
        Trial((speeds[1], mask), constrained),
    ]
