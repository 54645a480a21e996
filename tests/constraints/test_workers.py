"""Threads that find something for a busy caller: each piece of work is done once, and they end."""

import subprocess
import sys
import threading
import time
import weakref

import pytest

from metal_gen.constraints.workers import Asked, Workers

MOST, NAME = 3, "workers under test"


@pytest.fixture
def started():
    """Gives the threads that the test has started and that have not ended."""
    before = set(threading.enumerate())
    return lambda: [thread for thread in threading.enumerate() if thread not in before]


@pytest.fixture
def workers(started):
    return Workers(MOST, NAME)


def test_each_piece_of_work_gives_its_result(workers):
    asked = [workers.ask(lambda number=number: number * number) for number in range(200)]
    assert [each.result() for each in asked] == [number * number for number in range(200)]
    assert asked[7].result() == 49


def test_the_error_of_the_work_is_raised_by_the_caller(workers):
    failing, other = workers.ask(lambda: 1 // 0), workers.ask(lambda: 5)
    failing.wait()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            failing.result()
    assert other.result() == 5


def test_a_thread_is_started_only_if_those_before_it_may_be_busy(workers, started):
    for number in range(20):
        assert workers.ask(lambda number=number: number).result() == number
    assert len(started()) == 1
    may_end = threading.Event()
    asked = [workers.ask(may_end.wait) for _ in range(2 * MOST)]
    assert len(started()) == MOST
    assert not any(each.is_done for each in asked)
    may_end.set()
    assert all(each.result() for each in asked)
    assert len(started()) == MOST


@pytest.mark.parametrize("left", [0, 1])
def test_a_system_that_has_no_threads_left_does_not_end_the_text(workers, started, monkeypatch, left):
    start = threading.Thread.start

    def start_some(thread):
        if len(started()) == left:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    may_end = threading.Event()
    asked = [workers.ask(may_end.wait) for _ in range(2 * MOST)]
    may_end.set()
    assert [each and each.result() for each in asked] == [True if left else None] * (2 * MOST)
    assert len(started()) == left


def test_waiting_lasts_until_the_work_is_done(workers):
    may_end, events = threading.Event(), []
    asked = workers.ask(lambda: (may_end.wait(), events.append("done")))
    threading.Timer(0.05, may_end.set).start()
    asked.wait()
    assert events == ["done"]
    assert asked.is_done


def test_work_that_is_done_keeps_nothing_alive():
    class Owner:
        def work(self):
            return 3

    owner = Owner()
    asked, gone = Asked(owner.work), weakref.ref(owner)
    asked.run()
    del owner
    assert gone() is None
    assert asked.result() == 3


def test_threads_end_with_their_object(started):
    workers = Workers(MOST, NAME)
    may_end = threading.Event()
    asked = [workers.ask(may_end.wait) for _ in range(MOST)]
    threads = started()
    may_end.set()
    del workers
    assert all(each.result() for each in asked)
    for thread in threads:
        thread.join(10)
    assert not started()


def test_one_of_the_threads_may_let_go_of_them(started):
    holder = {"workers": Workers(MOST, NAME)}
    asked = holder["workers"].ask(lambda: (time.sleep(0.05), holder.clear()))
    asked.wait()
    for thread in started():
        thread.join(10)
    assert not started()


BUSY = """
import os, time
from metal_gen.constraints.workers import Workers
workers = Workers(2, "busy")
asked = [workers.ask(lambda: (time.sleep(0.2), os.write(1, b"done,"))) for _ in range(2)]
"""


def test_a_program_ends_after_the_work_that_was_begun():
    made = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=60)
    assert (made.stdout, made.stderr, made.returncode) == ("done,done,", "", 0)
