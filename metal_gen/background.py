"""Work that goes on beside what the calling thread does meanwhile."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Self, TypeVar

Result = TypeVar("Result")


class Background(Generic[Result]):
    """A computation on a thread of its own.

    As a context manager it waits for the work where the block fails, so that nothing goes on behind the
    back of whoever handles the failure.

    Args:
        work: Begun at once.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._future: Future[Result] = Future()
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> Result:
        """Wait for it.

        Raises:
            BaseException: What the work raised.
        """
        return self._future.result()

    def wait(self, timeout_s: float) -> bool:
        """Wait for at most so long; return whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._future.set_result(self._work())
        except BaseException as error:
            self._future.set_exception(error)
