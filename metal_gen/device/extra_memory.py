"""Keeps MLX from taking more memory than it needs: for work ahead, and for copies of what it still holds."""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

from metal_gen.device.backend import runs_on_cuda


@contextmanager
def limited_extra_memory(limit_bytes: int | None) -> Iterator[None]:
    """Make MLX wait for work that it has begun before it takes more additional memory than a limit.

    Args:
        limit_bytes: The limit; None for no limit.
    """
    if limit_bytes is None:
        yield
        return
    before = mx.set_memory_limit(mx.get_active_memory() + limit_bytes)
    try:
        yield
    finally:
        mx.set_memory_limit(before)


def wait_for_release() -> None:
    """Wait until MLX has let go of the arrays that it has finished computing with.

    On CUDA a thread of MLX does that a moment after the results are there. A buffer that is written before is
    copied as a whole.
    """
    if runs_on_cuda():
        mx.synchronize()
