"""The number of operations in one decode step."""

from collections.abc import Sequence

from metal_gen.bench.measurement import Measurement, Unit
from metal_gen.bench.request import GRAPH
from metal_gen.bench.runners.runner import Runner


def graph_measurements(runners: Sequence[Runner], depth: int) -> list[Measurement]:
    """Return the number of operations of each runner, counted once because it never varies."""
    return [
        Measurement(
            GRAPH,
            "primitives",
            Unit.COUNT,
            runner.program,
            {"depth": depth},
            values=[float(runner.primitives(depth))],
        )
        for runner in runners
    ]
