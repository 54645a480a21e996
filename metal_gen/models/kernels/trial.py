"""Compares a kernel with plain operations before it is used.

MLX does not check a kernel. One that does not compile on this device, or gives other numbers, is refused, and
plain operations take its place.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx

# Errors of MLX and its compilers for a kernel that they refuse.
REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError)

Computation = Callable[[], Sequence[mx.array]]


def reason_against(tried: Computation, expected: Computation, tolerance: float) -> str | None:
    """Return why a kernel cannot be used, or None if its numbers are right.

    Args:
        tried: Runs the kernel.
        expected: Computes the same with plain operations, evaluated.
        tolerance: Largest difference, as a share of the largest number. A kernel adds in another order, so
            small differences are normal. A wrong kernel is far off.
    """
    try:
        found = list(tried())
        mx.eval(found)
    except REFUSALS as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    for computed, right in zip(found, expected(), strict=True):
        if computed.shape != right.shape:
            return f"it gives {computed.shape} for {right.shape}"
        exact, wanted = computed.astype(mx.float32), right.astype(mx.float32)
        share = mx.abs(exact - wanted).max() / mx.abs(wanted).max()
        if not (share <= tolerance).item():  # Nor NaN.
            return f"its numbers differ by {share.item():.1e} of the largest"
    return None
