"""A check: compares numbers that the device computes with the same from plain operations on the CPU.

Every check computes its own inputs from a fixed seed, so that a report from one machine can be repeated on
another.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.device.backend import on_cpu

# Computed numbers, and expected ones.
Pair = tuple[mx.array, mx.array]

# Largest difference allowed, as a share of the largest expected number. Unless MLX_ENABLE_TF32=0, some GPUs
# multiply float32 numbers with the mantissa of TF32 (10 bits).
TOLERANCES = {mx.float32: 5e-3, mx.float16: 5e-3, mx.bfloat16: 3e-2}


@dataclass(frozen=True)
class Check:
    """A check of one kernel path.

    Attributes:
        name: What is computed.
        tolerance: Largest difference allowed, as a share of the largest expected number.
        pairs: Computes the numbers on the default device, and the expected ones on the CPU.
    """

    name: str
    tolerance: float
    pairs: Callable[[], Iterable[Pair]]


@dataclass(frozen=True)
class CheckResult:
    """The result of a check.

    Attributes:
        name: Name of the check.
        difference: Largest difference, as a share of the largest expected number; NaN if numbers are not
            finite, and None if nothing was computed.
        tolerance: Tolerance of the check.
        seconds: Duration in seconds.
        error: Why nothing was computed.
    """

    name: str
    difference: float | None
    tolerance: float
    seconds: float
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the device computes the expected numbers."""
        return self.difference is not None and self.difference <= self.tolerance

    def __str__(self) -> str:
        outcome = "ok" if self.passed else self.error or f"differs by {self.difference:.2g}"
        return f"{self.name}: {outcome} ({self.seconds:.2f} s)"


def run_check(check: Check) -> CheckResult:
    """Compute and compare. An error of the device becomes part of the result."""
    begin_s = time.perf_counter()
    difference, error = None, None
    try:
        shares = [_difference(computed, expected) for computed, expected in check.pairs()]
        difference = math.nan if any(map(math.isnan, shares)) else max(shares)
    except (
        RuntimeError,
        ValueError,
    ) as refusal:  # From MLX: a kernel does not compile, or no memory is left.
        error = f"{type(refusal).__name__}: {refusal}"
    return CheckResult(check.name, difference, check.tolerance, time.perf_counter() - begin_s, error)


def dtype_name(dtype: mx.Dtype) -> str:
    """Return the name of a dtype in settings and messages, such as `bfloat16`."""
    return str(dtype).removeprefix("mlx.core.")


def random_numbers(seed: int, *shape: int, dtype: mx.Dtype = mx.float32, scale: float = 1.0) -> mx.array:
    """Return normally distributed numbers, the same on every device because the CPU computes them."""
    with on_cpu():
        numbers = (mx.random.normal(shape, key=mx.random.key(seed)) * scale).astype(dtype)
        mx.eval(numbers)
    return numbers


def _difference(computed: mx.array, expected: mx.array) -> float:
    mx.eval(computed)
    with on_cpu():
        expected = expected.astype(mx.float32)
        largest = mx.abs(expected).max()
        share = (mx.abs(computed.astype(mx.float32) - expected).max() / mx.maximum(largest, 1e-30)).item()
    assert isinstance(share, float)
    return share
