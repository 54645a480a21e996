"""Threads that find something for a caller which is busy itself.

`concurrent.futures` takes several times as long to hand a piece of work over, which a decode loop would do
for every token.
"""

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Future(Generic[Result]):
    """A piece of work that another thread does.

    Args:
        work: The work.

    Attributes:
        is_done: Whether it has been done.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self.is_done = False
        self._work: Callable[[], Result] | None = work
        self._result: Result | None = None
        self._error: BaseException | None = None
        # Held until the work is done.
        self._running = threading.Lock()
        self._running.acquire()

    def run(self) -> None:
        """Do the work, in the thread that calls this."""
        assert self._work is not None
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        # What the work belongs to may be gone before this is.
        self._work = None
        self.is_done = True
        self._running.release()

    def wait(self) -> None:
        """Wait until the work is done."""
        if not self.is_done:
            with self._running:
                pass

    def result(self) -> Result:
        """Wait for the result.

        Raises:
            BaseException: Any exception of the work.
        """
        self.wait()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


class ThreadPool:
    """A few threads, each of which is started when those before it may be busy.

    They end with this object or, at the latest, when the program ends.

    Args:
        most: Maximum number of threads.
        name: Name of each thread.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._waiting: SimpleQueue[Future[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._last: Future[Any] | None = None
        weakref.finalize(self, _end, self._waiting, self._threads)

    def submit(self, work: Callable[[], Result]) -> Future[Result] | None:
        """Have a thread do a piece of work as soon as one is free.

        Return None where the system lets none start: the work is left to the caller.
        """
        if len(self._threads) < self._most and (self._last is None or not self._last.is_done):
            self._start()
        if not self._threads:
            return None
        self._last = future = Future(work)
        self._waiting.put(future)
        return future

    def _start(self) -> None:
        """Start a thread; if the system has none left, go on with those that there are."""
        # Python would wait for other threads than daemons before it calls `_end`.
        thread = threading.Thread(target=_work, args=(self._waiting,), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._most = len(self._threads)
            return
        self._threads.append(thread)


def _work(waiting: "SimpleQueue[Future[Any] | None]") -> None:
    while (future := waiting.get()) is not None:
        future.run()


def _end(waiting: "SimpleQueue[Future[Any] | None]", threads: list[threading.Thread]) -> None:
    """End the threads: one that still works while Python is taken down would end the program badly."""
    for _ in threads:
        waiting.put(None)
    for thread in threads:
        # The last to let go of the object may be one of its threads.
        if thread is not threading.current_thread():
            thread.join()
