"""Arrays of zeros. On a CPU, several threads fill large ones, in large pages, which `mx.zeros` does not."""

import ctypes
from collections.abc import Sequence
from functools import partial

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.device.filled_array import PIECE_BYTES, READ_AS, ArrayFiller, Task, parts

# `mx.zeros` is faster for smaller arrays.
LEAST_FILLED_BYTES = 4 << 20


def zero_arrays(kinds: Sequence[tuple[Sequence[int], mx.Dtype]]) -> list[mx.array]:
    """Return computed arrays of zeros.

    Args:
        kinds: Shape and dtype of each array.
    """
    with ArrayFiller() as filler:
        arrays = [_zeros(filler, shape, dtype) for shape, dtype in kinds]
    mx.eval(arrays)
    return arrays


def _zeros(filler: ArrayFiller, shape: Sequence[int], dtype: mx.Dtype) -> mx.array:
    zeros = mx.zeros(shape, dtype)
    if not runs_on_cpu() or zeros.nbytes < LEAST_FILLED_BYTES:
        return zeros
    name = next(name for name, read_as in READ_AS.items() if read_as == dtype)
    return filler.array(name, shape, partial(_tasks, filler.threads))


def _tasks(threads: int, memory: memoryview) -> list[Task]:
    most = max(PIECE_BYTES, -(-len(memory) // threads))
    return [partial(_clear, memory[begin:end]) for begin, end in parts(len(memory), most)]


def _clear(memory: memoryview) -> None:
    """Write zeros; other threads of Python run meanwhile."""
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 0, len(memory))
