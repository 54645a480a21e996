"""The time to load a model and its tokenizer from cached files, within this process."""

import time
from collections.abc import Callable
from pathlib import Path

from metal_gen.background import Background
from metal_gen.bench.measurement import METAL_GEN, MLX_LM, Measurement, Trial, Unit
from metal_gen.bench.request import LOAD
from metal_gen.device.buffer_cache import clear_buffer_cache
from metal_gen.generation.loading import PreparedModel


def load_trials(prepare: Callable[[], PreparedModel], compare_with: Path | None) -> list[Trial]:
    """Return trials that load a model with each program and discard it.

    Args:
        prepare: Opens and checks the checkpoint again.
        compare_with: The checkpoint for mlx-lm; None measures metal-gen only.
    """
    trials = [_trial(METAL_GEN, lambda: _load_s(prepare))]
    if compare_with is not None:
        from metal_gen.bench.runners import mlx_lm as mlx_lm_runner

        trials.append(_trial(MLX_LM, lambda: mlx_lm_runner.load_s(compare_with)))
    return trials


def _trial(program: str, load_s: Callable[[], float]) -> Trial:
    def run() -> tuple[float]:
        taken_s = load_s()
        clear_buffer_cache()
        return (taken_s,)

    return Trial((Measurement(LOAD, "load_s", Unit.SECONDS, program),), run)


def _load_s(prepare: Callable[[], PreparedModel]) -> float:
    begin = time.perf_counter()
    prepared = prepare()
    with Background(prepared.checkpoint.read_tokenizer) as reading:
        prepared.load()
        reading.result()
    return time.perf_counter() - begin
