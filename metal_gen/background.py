"""Work that goes on beside what the calling thread does meanwhile."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Background(Generic[Result]):
    """A computation on a thread of its own, which does not keep the process from ending.

    Args:
        work: Begun at once.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._future: Future[Result] = Future()
        self._work = work
        threading.Thread(target=self._run, daemon=True).start()

    def result(self) -> Result:
        """Wait for it.

        Raises:
            BaseException: What the work raised.
        """
        return self._future.result()

    def _run(self) -> None:
        try:
            self._future.set_result(self._work())
        except BaseException as error:
            self._future.set_exception(error)
