"""Handles Ctrl-C in an interactive chat."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """Makes Ctrl-C stop an answer or clear the typed line, but not end the chat.

    A second Ctrl-C before the answer has reacted to the first does what it does elsewhere. If this context is
    not entered, as in a pipe, Ctrl-C is unchanged.

    Attributes:
        requested: Whether the current answer is to be stopped.
    """

    def __init__(self) -> None:
        self.requested = False
        self._is_reading = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Make Ctrl-C raise `KeyboardInterrupt` while a line is typed."""
        self._is_reading = True
        # The event loop of a line editor takes the pipe by which `SignalWatch` learns of signals.
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        try:
            yield
        finally:
            self._is_reading = False
            signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)

    def begin_answer(self) -> None:
        """Forget earlier requests; only later ones stop this answer."""
        self.requested = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._is_reading:
            raise KeyboardInterrupt
        if self.requested and callable(self._before):
            self._before(signum, frame)
        self.requested = True
