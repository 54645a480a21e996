"""Peak memory of loading and of a prompt that fills the cache, compared with the plan."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import mlx.core as mx

from metal_gen.bench.measurement import METAL_GEN, Measurement, Unit
from metal_gen.bench.request import MEMORY
from metal_gen.bench.runners.runner import Runner
from metal_gen.device.buffer_cache import clear_buffer_cache
from metal_gen.generation.memory.plan import MemoryPlan

AnyRunner = TypeVar("AnyRunner", bound=Runner)


def load_measured(
    load: Callable[[], AnyRunner], prompt: Sequence[int], measurement: Measurement
) -> AnyRunner:
    """Load a runner and record MLX's peak memory in bytes, including a prompt.

    Loading itself counts only for metal-gen: another program's weights are cast to another dtype here, which
    it would not do on its own.

    Args:
        load: Returns the runner; nothing else may be allocated meanwhile.
        prompt: A prompt that fills the cache.
        measurement: Receives the value.
    """
    clear_buffer_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    runner = load()
    if measurement.program != METAL_GEN:
        clear_buffer_cache()
        mx.reset_peak_memory()
    runner.first_token_s(prompt)
    measurement.values.append(float(mx.get_peak_memory() - before))
    return runner


def peak_measurement(program: str, prompt_tokens: int) -> Measurement:
    """Return the figure for the peak memory, without values."""
    where = {"prompt_tokens": prompt_tokens}
    return Measurement(MEMORY, "peak_memory_bytes", Unit.BYTES, program, where)


def planned_measurements(plan: MemoryPlan) -> list[Measurement]:
    """Return the planned memory, in total and by part."""
    where = {"prompt_tokens": plan.cache.max_seq_len}
    planned = {
        "planned_bytes": plan.total_bytes,
        "planned_weights_bytes": plan.weights_bytes,
        "planned_cache_bytes": plan.cache.nbytes,
        "planned_working_bytes": plan.working_bytes,
    }
    return [
        Measurement(MEMORY, name, Unit.BYTES, METAL_GEN, where, values=[float(size)])
        for name, size in planned.items()
    ]
