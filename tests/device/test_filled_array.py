"""Tests arrays that several threads fill."""

import gc
import sys
import threading
from contextlib import contextmanager

import mlx.core as mx
import pytest

from metal_gen.device import filled_array
from metal_gen.device.filled_array import ArrayFiller


def test_tasks_fill_the_memory_of_the_array():
    def tasks(memory):
        def fill(place):
            memory[place : place + 4] = place.to_bytes(4, "little")

        return [lambda place=place: fill(place) for place in range(0, len(memory), 4)]

    with ArrayFiller() as filler:
        array = filler.array("U32", (3, 2), tasks)
    assert array.tolist() == [[0, 4], [8, 12], [16, 20]]


def test_no_numbers_need_no_tasks():
    with ArrayFiller() as filler:
        assert filler.array("F32", (0, 3), lambda memory: []).shape == (0, 3)
        assert filler.array("BF16", (), lambda memory: [lambda: memory.__setitem__(1, 0x40)]).ndim == 0


def test_what_a_task_raises_is_raised_when_no_task_uses_the_memory_any_more():
    is_done = threading.Event()

    def fail():
        raise KeyError("a task")

    def fill(memory):
        memory[:] = bytes(len(memory))
        is_done.set()

    with ArrayFiller() as filler:
        with pytest.raises(KeyError, match="a task"):
            filler.array("U8", (5,), lambda memory: [fail, lambda: fill(memory)])
        assert is_done.is_set()
        assert mx.all(filler.array("U8", (5,), lambda memory: [lambda: fill(memory)]) == 0)


@contextmanager
def slow_turns():
    """Threads take turns so rarely that another thread lets go of things only while this one waits."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(10)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def files_that_mlx_holds():
    # Before they are searched for: the search takes long enough for MLX.
    objects = gc.get_objects()
    return [each for each in objects if type(each) is filled_array._HandedFile]


def test_mlx_holds_no_file_when_the_threads_have_ended():
    # A program that ends meanwhile would abort. Without waiting, about one in ten is still held.
    with slow_turns():
        for _ in range(100):
            with ArrayFiller() as filler:
                filler.array("U8", (5,), lambda memory: [lambda: None])
            assert not files_that_mlx_holds()


def test_mlx_holds_no_file_after_an_error():
    def fail():
        raise KeyError("a task")

    with pytest.raises(KeyError, match="a task") as failed, ArrayFiller() as filler:
        filler.array("U8", (5,), lambda memory: [fail])
    assert not files_that_mlx_holds()
    assert failed.tb is not None


def test_large_pages_are_asked_for_before_the_memory_is_filled(monkeypatch):
    done = []
    monkeypatch.setattr(filled_array, "use_large_pages", lambda memory: done.append(memory.nbytes))
    with ArrayFiller() as filler:
        filler.array("U16", (5,), lambda memory: [lambda: done.append("filled")])
    assert done == [10, "filled"]


def test_a_single_task_needs_no_thread():
    threads = []
    with ArrayFiller() as filler:
        filler._run([lambda: threads.append(threading.current_thread())])
    assert threads == [threading.current_thread()]


def load_in_parts(sizes):
    """Return an `mx.load` that asks for the data of a file in parts of these sizes."""

    def load(file, format):
        head = bytearray(8)
        file.readinto(memoryview(head))
        file.seek(8 + int.from_bytes(head, "little"))
        for size in sizes:
            file.readinto(memoryview(bytearray(size)))
        return {"array": mx.zeros(4)}

    return load


@pytest.mark.parametrize("sizes", [(8, 8), (16, 16), ()], ids=str)
def test_numbers_that_mlx_does_not_ask_for_at_once_are_an_error(monkeypatch, sizes):
    monkeypatch.setattr(filled_array.mx, "load", load_in_parts(sizes))
    with ArrayFiller() as filler, pytest.raises(RuntimeError, match=r"MLX (asked for|did not ask for)"):
        filler.array("F32", (4,), lambda memory: [lambda: memory.__setitem__(0, 1)])


def test_numbers_that_mlx_asks_for_at_once_are_filled(monkeypatch):
    monkeypatch.setattr(filled_array.mx, "load", load_in_parts([16]))
    with ArrayFiller() as filler:
        assert filler.array("F32", (4,), lambda memory: [lambda: memory.__setitem__(0, 1)]).shape == (4,)
