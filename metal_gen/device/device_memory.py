"""Keeps the few numbers that a kernel is told in memory of the GPU.

MLX for CUDA keeps arrays of up to 8 bytes in memory of the host (`SmallSizePool` in its `allocator.cpp`), and
those that Python makes until a GPU first uses them. Each row of threads that reads such an array waits for
the bus. Metal's memory is that of the host.
"""

from functools import cache

import mlx.core as mx

from metal_gen.device.backend import runs_on_cuda

# With these, any array has more than 8 bytes.
FILLING = 3


def in_device_memory(numbers: mx.array) -> mx.array:
    """Return numbers that a GPU reads without waiting for the host.

    Args:
        numbers: (N,), in a dtype of 4 bytes.

    Returns:
        The numbers; on CUDA in a new array, with zeros after them.
    """
    return mx.concatenate([numbers, _zeros(numbers.dtype)]) if runs_on_cuda() else numbers


@cache
def _zeros(dtype: mx.Dtype) -> mx.array:
    zeros = mx.zeros((FILLING,), dtype)
    mx.eval(zeros)
    return zeros
