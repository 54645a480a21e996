"""Measures the memory that MLX takes for something."""

import gc

import mlx.core as mx


def begin_peak() -> int:
    """Begin to measure; returns the bytes that there are before.

    Buffers that other tests have left are given back first: one that is reused may be larger than what was
    asked for, and counts as what it is.
    """
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    return before


def peak_since(before: int) -> int:
    """The most bytes that there have been, beside those before."""
    return mx.get_peak_memory() - before
