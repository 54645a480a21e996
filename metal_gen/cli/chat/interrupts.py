"""What Ctrl-C does while a person chats."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """Has Ctrl-C stop an answer, or clear the line that is typed, and never end the chat by surprise.

    Only a second one, before the answer has heeded the first, does what Ctrl-C does elsewhere. Not entered,
    as where nobody types, it leaves Ctrl-C as it is.

    Attributes:
        requested: The answer under way is to be stopped.
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
        """While a line is typed, Ctrl-C raises `KeyboardInterrupt`."""
        self._is_reading = True
        try:
            yield
        finally:
            self._is_reading = False

    def begin_answer(self) -> None:
        """Heed what comes from here on."""
        self.requested = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._is_reading:
            raise KeyboardInterrupt
        if self.requested and callable(self._before):
            self._before(signum, frame)
        self.requested = True
