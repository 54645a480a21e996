"""Measures the memory that MLX takes."""

import gc
from collections.abc import Callable, Iterator
from itertools import islice
from statistics import median

import mlx.core as mx


def begin_peak() -> int:
    """Start measuring, and return the bytes in use before.

    Buffers that other tests have left are given back first: one that is reused may be larger than what was
    asked for, and counts as what it is.
    """
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    return before


def peak_since(before: int) -> int:
    """Return the peak memory since the start, without the bytes in use before."""
    return mx.get_peak_memory() - before


def peaks_of(run: Callable[[], object]) -> Iterator[int]:
    """Yield the peak of one run after another, in bytes."""
    while True:
        before = begin_peak()
        run()
        yield peak_since(before)


def highest_peak(run: Callable[[], object], enough: float) -> int:
    """Return the highest peak in bytes of up to 20 runs; stop once one reaches `enough`.

    MLX's CPU stream frees a buffer when its thread gets to it. Where that thread is quick, the peak of a
    small model is lower than what can be there at once.
    """
    highest = 0
    for peak in islice(peaks_of(run), 20):
        highest = max(highest, peak)
        if highest >= enough:
            break
    return highest


def usual_peak(run: Callable[[], object], runs: int = 3) -> int:
    """Return the median of the peaks of a few runs, in bytes.

    One run may have a higher peak, where a thread of MLX frees a buffer late.
    """
    return int(median(islice(peaks_of(run), runs)))
