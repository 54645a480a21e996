"""How many operations one decode step consists of."""

from collections.abc import Sequence

from metal_gen.bench.measurement import Measurement, Unit
from metal_gen.bench.request import GRAPH
from metal_gen.bench.runners.runner import Runner


def graph_measurements(runners: Sequence[Runner], depth: int) -> list[Measurement]:
    """Counted once: nothing about it varies."""
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
