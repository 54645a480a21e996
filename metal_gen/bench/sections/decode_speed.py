"""Decode speed in tokens per second, by depth, and by cache capacity at one depth."""

from collections.abc import Mapping, Sequence

from metal_gen.bench.measurement import Measurement, Trial, Unit
from metal_gen.bench.request import CAPACITY, DECODE
from metal_gen.bench.runners.runner import Runner
from metal_gen.bench.sections.ceiling import ceiling_tps
from metal_gen.generation.memory.plan import MemoryPlan


def decode_trials(
    runners: Sequence[Runner], depths: Sequence[int], count: int, plan: MemoryPlan, bandwidth: float | None
) -> list[Trial]:
    """Return trials of each depth with each runner in turn.

    Args:
        runners: Their caches must hold the greatest depth and the new tokens.
        depths: Numbers of tokens before the new ones.
        count: Number of new tokens, at least two.
        plan: Memory plan with the bytes that a token reads.
        bandwidth: Memory bandwidth in bytes per second; None omits the ceiling.
    """
    return [
        _trial(DECODE, runner, {"depth": depth}, count, plan, bandwidth)
        for depth in depths
        for runner in runners
    ]


def capacity_trials(
    runners: Mapping[int, Runner],
    others: Sequence[Runner],
    depth: int,
    count: int,
    plan: MemoryPlan,
    bandwidth: float | None,
) -> list[Trial]:
    """Return trials of one depth in caches of several capacities; `others` have no fixed capacity."""
    trials = [
        _trial(CAPACITY, runner, {"depth": depth, "capacity": capacity}, count, plan, bandwidth)
        for capacity, runner in runners.items()
    ]
    return trials + [_trial(CAPACITY, runner, {"depth": depth}, count, plan, bandwidth) for runner in others]


def _trial(
    section: str,
    runner: Runner,
    where: Mapping[str, int],
    count: int,
    plan: MemoryPlan,
    bandwidth: float | None,
) -> Trial:
    depth = where["depth"]
    # The ceiling at the middle of the new tokens, because each of them reads a little more.
    ceiling = None if bandwidth is None else ceiling_tps(bandwidth, plan, depth + count // 2)
    measurement = Measurement(section, "decode_tps", Unit.TOKENS_PER_SECOND, runner.program, where, ceiling)
    return Trial((measurement,), lambda: (runner.decode(depth, count).decode_tps,))
