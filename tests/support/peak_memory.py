"""Measures the memory that MLX takes."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from itertools import islice
from statistics import median
from typing import Any

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.device.buffer_cache import clear_buffer_cache

PAGE, MOST_OPERATIONS = 16_384, 100


def begin_peak() -> int:
    """Start measuring, and return the bytes in use before.

    Buffers that other tests have left are given back first: one that is reused may be larger than what was
    asked for, and counts as what it is.
    """
    gc.collect()
    before = in_use()
    clear_buffer_cache()
    mx.reset_peak_memory()
    return before


def in_use() -> int:
    """Return the bytes in use, without those that MLX is about to free."""
    mx.synchronize()
    return mx.get_active_memory()


def rounding(*parts: Any) -> int:
    """Return how many bytes more than their own size MLX takes for arrays on this device.

    CUDA and Metal round the size of an array up to whole pages of 16 KiB. CUDA, and this function, round
    smaller ones up to a power of two. On a CPU MLX takes what is asked for.

    Args:
        parts: Arrays, and objects that are made of them.
    """
    arrays = {id(array): array for part in parts for array in _arrays_of(part)}
    return 0 if runs_on_cpu() else sum(_granted(each.nbytes) - each.nbytes for each in arrays.values())


def rounding_of_operations() -> int:
    """Return by how many bytes at most a GPU rounds up the results of operations that it computes together.

    MLX hands up to 100 operations over at once and keeps their results until the last is done. It matters
    where the results are as small as those of the tests' models.
    """
    return 0 if runs_on_cpu() else MOST_OPERATIONS * PAGE


def _granted(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE if nbytes >= PAGE else 1 << max(3, (nbytes - 1).bit_length())


def _arrays_of(part: Any) -> Iterator[mx.array]:
    if isinstance(part, mx.array):
        yield part
    elif isinstance(part, list | tuple):
        for each in part:
            yield from _arrays_of(each)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _arrays_of(getattr(part, field.name))


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
