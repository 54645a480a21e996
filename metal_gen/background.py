"""Runs work in a thread while the caller does something else."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Self, TypeVar

Result = TypeVar("Result")


class Background(Generic[Result]):
    """A computation in its own thread.

    As a context manager, it waits for the work if the block fails, so that nothing runs on while the failure
    is handled.

    Args:
        work: The computation; it starts at once.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._future: Future[Result] = Future()
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> Result:
        """Wait for the result.

        Raises:
            BaseException: Any exception of the work.
        """
        return self._future.result()

    def wait(self, timeout_s: float) -> bool:
        """Wait up to a timeout in seconds; return whether the work has ended."""
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
