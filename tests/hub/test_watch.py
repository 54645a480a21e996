"""Tests watched work: it ends when stopped, and when the Hub sends too little or never stops."""

import threading

import pytest

from metal_gen.errors import ModelNotFoundError
from metal_gen.hub import watch
from metal_gen.hub.watch import for_each, run_watched


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    monkeypatch.setattr(watch, "WINDOW_S", 0.05)


def watched(received_bytes, **options):
    """Watch work that runs until it is stopped."""
    stopped = threading.Event()

    def work():
        assert stopped.wait(5)

    try:
        run_watched(work, received_bytes, stopped.set, **options)
    finally:
        assert stopped.is_set()


def test_what_work_returns_and_raises_comes_through():
    assert run_watched(lambda: 5, lambda: 0, pytest.fail) == 5
    with pytest.raises(KeyError, match="x"):
        run_watched(lambda: {}["x"], lambda: 0, pytest.fail)


def test_work_that_hears_nothing_is_stopped():
    with pytest.raises(ModelNotFoundError, match="too slowly: 0 bytes"):
        watched(lambda: 1000)


def test_work_that_never_stops_receiving_is_stopped():
    amounts = iter(range(0, 10**12, 10**9))
    with pytest.raises(ModelNotFoundError, match="does not stop sending: 2,000,000,000 bytes"):
        watched(lambda: next(amounts), most_bytes=10**9)


def test_work_is_stopped_with_whoever_waits_for_it():
    def interrupt():
        raise KeyboardInterrupt

    calls = iter([lambda: 0, interrupt])
    with pytest.raises(KeyboardInterrupt):
        watched(lambda: next(calls)())


def test_every_name_is_worked_on_once():
    done = []
    for_each([str(n) for n in range(100)], done.append, 8)
    assert sorted(done, key=int) == [str(n) for n in range(100)]
    for_each([], pytest.fail, 8)


def test_after_a_failure_nothing_new_is_begun():
    begun = []

    def work(name):
        begun.append(name)
        if name == "3":
            raise OSError(name)

    with pytest.raises(OSError, match="3"):
        for_each([str(n) for n in range(10)], work, 1)
    assert begun == ["0", "1", "2", "3"]
