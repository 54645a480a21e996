"""All checks, in the order in which a report lists them."""

from collections.abc import Callable, Iterator

from metal_gen.device.buffer_cache import limit_buffer_cache
from metal_gen.device_checks.attention import attention_checks
from metal_gen.device_checks.check import Check, CheckResult, run_check
from metal_gen.device_checks.matrices import matrix_checks
from metal_gen.device_checks.models import model_checks
from metal_gen.device_checks.samplers import sampler_checks

CACHE_BYTES = 1 << 30


def every_check() -> Iterator[Check]:
    """Yield the checks of attention, matrices, whole models and samplers."""
    yield from attention_checks()
    yield from matrix_checks()
    yield from model_checks()
    yield from sampler_checks()


def run_every_check(on_result: Callable[[CheckResult, int, int], None] | None = None) -> list[CheckResult]:
    """Run all checks on the default device.

    Args:
        on_result: Called after each check with its result, the number of checks done and their total.
    """
    checks = list(every_check())
    results = []
    # A model loaded earlier may have set a limit so small that MLX frees each result at once. A GPU waits
    # for that.
    before = limit_buffer_cache(CACHE_BYTES)
    try:
        for check in checks:
            results.append(run_check(check))
            if on_result is not None:
                on_result(results[-1], len(results), len(checks))
    finally:
        limit_buffer_cache(before)
    return results
