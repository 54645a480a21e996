"""Where the time of a decode step goes on the host, and how many operations the device has with it."""

from collections.abc import Mapping, Sequence

from metal_gen.bench.measurement import Measurement, Trial, Unit
from metal_gen.bench.request import STEP
from metal_gen.bench.runners.engine import EngineRunner

TIMES = ("build", "hand_over", "wait")


def step_operations(kinds: Mapping[str, EngineRunner], depths: Sequence[int]) -> list[Measurement]:
    """Return the device's operations of each kind of step, counted once because they never vary."""
    return [
        Measurement(
            STEP,
            f"{kind}_device_operations",
            Unit.COUNT,
            parameters={"depth": depth},
            values=[float(runner.device_operations(depth))],
        )
        for depth in depths
        for kind, runner in kinds.items()
    ]


def step_trials(kinds: Mapping[str, EngineRunner], depths: Sequence[int], count: int) -> list[Trial]:
    """Return trials of each depth with each kind of step.

    Args:
        kinds: Runners by the kind of their step.
        depths: Numbers of tokens before the new ones.
        count: Number of new tokens, at least one; the cache must have room for them and one more.
    """
    return [_trial(kind, runner, depth, count) for depth in depths for kind, runner in kinds.items()]


def _trial(kind: str, runner: EngineRunner, depth: int, count: int) -> Trial:
    figures = [
        Measurement(STEP, f"{kind}_{name}_us", Unit.MICROSECONDS, parameters={"depth": depth})
        for name in TIMES
    ]

    def run() -> list[float]:
        times = runner.host_times(depth, count)
        return [1e6 * seconds for seconds in (times.build_s, times.hand_over_s, times.wait_s)]

    return Trial(tuple(figures), run)
