"""Tests arrays of zeros."""

import ctypes

import mlx.core as mx
import pytest

from metal_gen.device import zero_arrays as module
from metal_gen.device.buffer_cache import limit_buffer_cache
from metal_gen.device.zero_arrays import LEAST_FILLED_BYTES, zero_arrays

# Not a multiple of the number of threads.
MANY = LEAST_FILLED_BYTES // 2 + 3


@pytest.mark.metal
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16, mx.uint32, mx.uint8], ids=str)
def test_arrays_are_those_of_mlx(dtype):
    shapes = [(2, MANY), (3, 1), (0, 4), ()]
    arrays = zero_arrays([(shape, dtype) for shape in shapes])
    assert [array.shape for array in arrays] == shapes
    for array in arrays:
        assert array.dtype == dtype
        assert mx.array_equal(array, mx.zeros(array.shape, dtype))


def test_memory_that_was_used_before_is_cleared():
    limit = limit_buffer_cache(1 << 30)
    try:
        used = mx.full((2, MANY), 7, mx.uint8)
        mx.eval(used)
        del used
        [array] = zero_arrays([((2, MANY), mx.uint8)])
        assert not mx.any(array).item()
    finally:
        limit_buffer_cache(limit)


def test_arrays_are_written_in_place():
    [array] = zero_arrays([((4, MANY), mx.uint8)])
    before = address_of(array)
    array[1:3] = mx.ones((2, MANY), mx.uint8)
    mx.eval(array)
    assert address_of(array) == before
    assert mx.sum(array.astype(mx.int32)).item() == 2 * MANY


def address_of(array):
    with memoryview(array) as memory:
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def test_only_large_arrays_of_a_cpu_are_filled_by_threads(monkeypatch):
    def refuse(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr(module.ArrayFiller, "array", refuse)
    zero_arrays([((LEAST_FILLED_BYTES - 1,), mx.uint8)])
    with pytest.raises(AssertionError):
        zero_arrays([((LEAST_FILLED_BYTES,), mx.uint8)])
    monkeypatch.setattr(module, "runs_on_cpu", lambda: False)
    zero_arrays([((LEAST_FILLED_BYTES,), mx.uint8)])
