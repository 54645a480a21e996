"""Compares a kernel with plain operations before it is used.

MLX does not check a kernel. One that does not compile on this device, or gives other numbers, is refused, and
plain operations take its place.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import mlx.core as mx

from metal_gen.device.backend import on_cpu

# Errors of MLX and its compilers for a kernel that they refuse.
REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError)


class Trial(ABC):
    """Arrays to try a kernel with."""

    @abstractmethod
    def by_kernel(self) -> Sequence[mx.array]:
        """Return what the kernel computes."""

    @abstractmethod
    def plainly(self) -> Sequence[mx.array]:
        """Return the same by MLX's operations, in float32."""

    def on_cpu(self) -> Sequence[mx.array]:
        """Return the same by MLX's operations on the CPU, evaluated."""
        with on_cpu():
            expected = self.plainly()
            mx.eval(expected)
        return expected


def random_arrays(shapes: Sequence[Sequence[int]]) -> list[mx.array]:
    """Return arrays of these shapes with normal random numbers in float32, which are always the same."""
    return [mx.random.normal(shape, key=mx.random.key(seed)) for seed, shape in enumerate(shapes)]


def reason_against(trial: Trial, tolerance: float) -> str | None:
    """Return why a kernel cannot be used, or None if its numbers are right.

    Args:
        trial: Arrays to try it with.
        tolerance: Largest difference, as a share of the largest number. A kernel adds in another order, so
            small differences are normal. A wrong kernel is far off.
    """
    try:
        found = list(trial.by_kernel())
        mx.eval(found)
    except REFUSALS as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    for computed, right in zip(found, trial.on_cpu(), strict=True):
        if computed.shape != right.shape:
            return f"it gives {computed.shape} for {right.shape}"
        exact, wanted = computed.astype(mx.float32), right.astype(mx.float32)
        share = mx.abs(exact - wanted).max() / mx.abs(wanted).max()
        if not (share <= tolerance).item():  # Nor NaN.
            return f"its numbers differ by {share.item():.1e} of the largest"
    return None
