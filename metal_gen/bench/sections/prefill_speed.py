"""Time to the first token, and prefill speed in prompt tokens per second, by prompt length."""

from collections.abc import Mapping, Sequence

from metal_gen.bench.measurement import Measurement, Trial, Unit
from metal_gen.bench.request import PREFILL
from metal_gen.bench.runners.runner import Runner


def prefill_trials(runners: Sequence[Runner], prompts: Mapping[int, Sequence[int]]) -> list[Trial]:
    """Return trials of each prompt with each runner in turn."""
    return [_trial(runner, prompt) for prompt in prompts.values() for runner in runners]


def _trial(runner: Runner, prompt: Sequence[int]) -> Trial:
    where = {"prompt_tokens": len(prompt)}

    def run() -> tuple[float, float]:
        ttft_s = runner.first_token_s(prompt)
        return len(prompt) / ttft_s, ttft_s

    return Trial(
        (
            Measurement(PREFILL, "prefill_tps", Unit.TOKENS_PER_SECOND, runner.program, where),
            Measurement(PREFILL, "ttft_s", Unit.SECONDS, runner.program, where),
        ),
        run,
    )
