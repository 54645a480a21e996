"""Threads that find something for a busy caller: each piece of work is done once, and they end."""

import subprocess
import sys
import threading
import time
import weakref

import pytest

from metal_gen.constraints.thread_pool import Future, ThreadPool

MOST, NAME = 3, "pool under test"


@pytest.fixture
def started():
    """Gives the threads that the test has started and that have not ended."""
    before = set(threading.enumerate())
    return lambda: [thread for thread in threading.enumerate() if thread not in before]


@pytest.fixture
def pool(started):
    return ThreadPool(MOST, NAME)


def test_each_piece_of_work_gives_its_result(pool):
    futures = [pool.submit(lambda number=number: number * number) for number in range(200)]
    assert [each.result() for each in futures] == [number * number for number in range(200)]
    assert futures[7].result() == 49


def test_the_error_of_the_work_is_raised_by_the_caller(pool):
    failing, other = pool.submit(lambda: 1 // 0), pool.submit(lambda: 5)
    failing.wait()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            failing.result()
    assert other.result() == 5


def test_a_thread_is_started_only_if_those_before_it_may_be_busy(pool, started):
    for number in range(20):
        assert pool.submit(lambda number=number: number).result() == number
    assert len(started()) == 1
    may_end = threading.Event()
    futures = [pool.submit(may_end.wait) for _ in range(2 * MOST)]
    assert len(started()) == MOST
    assert not any(each.is_done for each in futures)
    may_end.set()
    assert all(each.result() for each in futures)
    assert len(started()) == MOST


@pytest.mark.parametrize("left", [0, 1])
def test_a_system_that_has_no_threads_left_does_not_end_the_text(pool, started, monkeypatch, left):
    start = threading.Thread.start

    def start_some(thread):
        if len(started()) == left:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    may_end = threading.Event()
    futures = [pool.submit(may_end.wait) for _ in range(2 * MOST)]
    may_end.set()
    assert [each and each.result() for each in futures] == [True if left else None] * (2 * MOST)
    assert len(started()) == left


def test_waiting_lasts_until_the_work_is_done(pool):
    may_end, events = threading.Event(), []
    future = pool.submit(lambda: (may_end.wait(), events.append("done")))
    threading.Timer(0.05, may_end.set).start()
    future.wait()
    assert events == ["done"]
    assert future.is_done


def test_work_that_is_done_keeps_nothing_alive():
    class Owner:
        def work(self):
            return 3

    owner = Owner()
    future, gone = Future(owner.work), weakref.ref(owner)
    future.run()
    del owner
    assert gone() is None
    assert future.result() == 3


def test_threads_end_with_their_object(started):
    pool = ThreadPool(MOST, NAME)
    may_end = threading.Event()
    futures = [pool.submit(may_end.wait) for _ in range(MOST)]
    threads = started()
    may_end.set()
    del pool
    assert all(each.result() for each in futures)
    for thread in threads:
        thread.join(10)
    assert not started()


def test_one_of_the_threads_may_let_go_of_them(started):
    holder = {"pool": ThreadPool(MOST, NAME)}
    future = holder["pool"].submit(lambda: (time.sleep(0.05), holder.clear()))
    future.wait()
    for thread in started():
        thread.join(10)
    assert not started()


BUSY = """
import os, time
from metal_gen.constraints.thread_pool import ThreadPool
pool = ThreadPool(2, "busy")
futures = [pool.submit(lambda: (time.sleep(0.2), os.write(1, b"done,"))) for _ in range(2)]
"""


def test_a_program_ends_after_the_work_that_was_begun():
    made = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=60)
    assert (made.stdout, made.stderr, made.returncode) == ("done,done,", "", 0)
