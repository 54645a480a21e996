"""Ctrl-C and SIGTERM: the first unwinds the process, a second ends it at once.

Python runs a signal's handler between two of its own steps, and a long computation of MLX is one step.
A thread of its own learns of signals as they arrive: it says that the first has been heard, and ends the
process at the second.
"""

import os
import select
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from metal_gen.cli.console import Console
from metal_gen.cli.terminal import shows_animation
from metal_gen.errors import ExitCode

ENDINGS = {
    signal.SIGINT: ("interrupted", ExitCode.INTERRUPTED),
    signal.SIGTERM: ("terminated", ExitCode.TERMINATED),
}
PATIENCE_S = 0.5
SHOW_CURSOR = b"\x1b[?25h"


class StoppedError(BaseException):
    """A signal asked the process to stop; not an `Exception`, so that nothing swallows it."""

    def __init__(self, word: str, exit_code: ExitCode) -> None:
        super().__init__(word)
        self.word = word
        self.exit_code = exit_code


def stopped_by(error: BaseException | None) -> StoppedError | None:
    """The signal that an error comes from: compiled code that is interrupted may raise one of its own."""
    while error is not None and not isinstance(error, StoppedError):
        error = error.__cause__ or error.__context__
    return error


class SignalWatch:
    """Handles the signals of this process."""

    def __init__(self) -> None:
        self._unwinding = threading.Event()

    def start(self) -> None:
        """Handle them from now on."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        for number in ENDINGS:
            signal.signal(number, self._stop)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), daemon=True).start()

    def _stop(self, signum: int, frame: FrameType | None) -> NoReturn:
        self._unwinding.set()
        word, code = ENDINGS[signal.Signals(signum)]
        # Here too, for what takes the place of the thread's pipe: an event loop does.
        for number in ENDINGS:
            signal.signal(number, lambda *_: _leave_at_once(code))
        raise StoppedError(word, code)

    def _watch(self, arrivals: int) -> None:
        word, code = _next_ending(arrivals)
        is_second = bool(select.select([arrivals], [], [], PATIENCE_S)[0])
        if not is_second and not self._unwinding.is_set():
            Console().warn(f"{word}: ends after the step under way; once more ends it at once")
        _next_ending(arrivals)
        _leave_at_once(code)


def _next_ending(arrivals: int) -> tuple[str, ExitCode]:
    """Wait for one of the signals; Python reports every one that it handles."""
    while True:
        number = os.read(arrivals, 1)[0]
        if number in ENDINGS:
            return ENDINGS[signal.Signals(number)]


def _leave_at_once(code: ExitCode) -> NoReturn:
    """End without unwinding; a bar may have hidden the cursor."""
    if shows_animation(sys.stderr):
        with suppress(OSError):
            os.write(2, SHOW_CURSOR)
    os._exit(code)
