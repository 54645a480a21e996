"""The time of the next token with the cache, and without it: computing the whole text again."""

from collections.abc import Mapping, Sequence

from metal_gen.bench.measurement import Measurement, Trial, Unit
from metal_gen.bench.request import UNCACHED
from metal_gen.bench.runners.runner import Runner


def cached_uncached_trials(runner: Runner, prompts: Mapping[int, Sequence[int]], count: int) -> list[Trial]:
    """Return trials that measure both ways in turn, at each length.

    Args:
        runner: Its cache must hold the longest text and the new tokens.
        prompts: Texts by length in tokens.
        count: Number of new tokens, at least two, over which the time with the cache is averaged.
    """
    return [_trial(runner, prompt, count) for prompt in prompts.values()]


def _trial(runner: Runner, prompt: Sequence[int], count: int) -> Trial:
    where = {"length": len(prompt)}

    def run() -> tuple[float, float, float]:
        cached_ms = 1e3 / runner.decode(len(prompt), count).decode_tps
        uncached_ms = 1e3 * runner.first_token_s(prompt)
        return cached_ms, uncached_ms, uncached_ms / cached_ms

    return Trial(
        (
            Measurement(UNCACHED, "cached_ms", Unit.MILLISECONDS, runner.program, where),
            Measurement(UNCACHED, "uncached_ms", Unit.MILLISECONDS, runner.program, where),
            Measurement(UNCACHED, "speedup_ratio", Unit.RATIO, runner.program, where),
        ),
        run,
    )
