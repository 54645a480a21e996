"""Limits the memory that MLX takes in addition to what it has."""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx


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
