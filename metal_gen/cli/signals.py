"""Ctrl-C, SIGTERM and SIGHUP: the first signal unwinds the process, a second one ends it at once.

A closed terminal sends SIGHUP, and its shell may send another, so SIGHUP never counts as a second signal. A
signal that was ignored when the process started, as SIGHUP is under nohup, stays ignored.

Python runs signal handlers between two steps of the interpreter, and a long MLX computation is one step. A
separate thread learns of signals as they arrive: it reports that the first one was received, and ends the
process at the second.
"""

import os
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from metal_gen.cli.chat.paste_marks import OFF
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.streams import is_terminal, shows_animation
from metal_gen.errors import ExitCode

ENDINGS = {
    signal.SIGINT: ("interrupted", ExitCode.INTERRUPTED),
    signal.SIGTERM: ("terminated", ExitCode.TERMINATED),
    signal.SIGHUP: ("hung up", ExitCode.HUNG_UP),
}
IMPATIENT = (signal.SIGINT, signal.SIGTERM)
PATIENCE_S = 0.5
SHOW_CURSOR, ERASE_LINE = b"\x1b[?25h", b"\r\x1b[2K"
STDIN = 0


class StoppedError(BaseException):
    """A signal asked the process to stop; not an `Exception`, so that nothing catches it by accident."""

    def __init__(self, word: str, exit_code: ExitCode) -> None:
        super().__init__(word)
        self.word = word
        self.exit_code = exit_code


def stopped_by(error: BaseException | None) -> StoppedError | None:
    """Return the signal behind an error: interrupted compiled code may raise an error of its own."""
    while error is not None and not isinstance(error, StoppedError):
        error = error.__cause__ or error.__context__
    return error


class SignalWatch:
    """Handles the signals of this process, unless something else replaces the handlers.

    Attributes:
        stopped: The first signal, once it unwinds the process. An error after it comes from it: a compiled
            library that calls Python may raise an error of its own in its place.
    """

    def __init__(self) -> None:
        self.stopped: StoppedError | None = None
        self._modes = terminal_modes()

    def start(self) -> None:
        """Install the handlers."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        for number in ENDINGS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._stop)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), daemon=True).start()

    def _stop(self, signum: int, frame: FrameType | None) -> NoReturn:
        self.stopped = StoppedError(*ENDINGS[signal.Signals(signum)])
        # Also needed if an event loop has replaced the wakeup pipe of the thread.
        for number in ENDINGS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._leave)
        raise self.stopped

    def _leave(self, signum: int, frame: FrameType | None = None) -> None:
        """End without unwinding, with the cursor at the start of a line, and the terminal as it was."""
        if signum not in IMPATIENT:
            return
        with suppress(OSError, ValueError, AttributeError, termios.error):
            leave_screen(has_echo=signum == signal.SIGINT)
            restore_modes(self._modes)
        os._exit(ENDINGS[signal.Signals(signum)][1])

    def _watch(self, arrivals: int) -> None:
        first = self._wait(arrivals, None, ENDINGS)
        second = self._wait(arrivals, PATIENCE_S, IMPATIENT)
        if not second and self.stopped is None:
            word, _ = ENDINGS[signal.Signals(first)]
            again = "press Ctrl-C again" if first == signal.SIGINT else "send SIGTERM again"
            console = Console.on_screen or Console()
            message = f"{word}: stopping after the current step; {again} to stop now"
            console.warn(message, even_if_quiet=True)
        self._leave(second or self._wait(arrivals, None, IMPATIENT))

    def _wait(self, arrivals: int, seconds: float | None, numbers: Collection[int]) -> int:
        """Wait for the next of these signals that ends the process; return 0 on timeout."""
        deadline_s = None if seconds is None else time.monotonic() + seconds
        while True:
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            if not select.select([arrivals], [], [], left_s)[0]:
                return 0
            # Python reports every signal that it handles, including those a chat handles itself.
            number = os.read(arrivals, 1)[0]
            if number in numbers and signal.getsignal(number) in (self._stop, self._leave):
                return number


def leave_screen(*, has_echo: bool) -> None:
    """Erase a bar, which hides the cursor, or end the line; takes no locks, which others may hold.

    Args:
        has_echo: Whether the terminal has shown `^C` at the cursor.
    """
    console = Console.on_screen
    has_bar = console is not None and console.bar is not None
    unfinished = None if console is None else console.unfinished_line
    if shows_animation(sys.stderr):
        os.write(2, SHOW_CURSOR + (ERASE_LINE if has_bar else b"\n" if has_echo else b""))
        has_bar = has_bar or has_echo
    if unfinished is not None and not has_bar:
        os.write(unfinished.fileno(), b"\n")


def terminal_modes() -> Any:
    """Return the modes of the terminal on standard input; None if it is no terminal."""
    try:
        return termios.tcgetattr(STDIN)
    except (OSError, ValueError, termios.error):
        return None


def restore_modes(modes: Any) -> None:
    """Give the terminal back as it was: a chat turns off its echo, and has it mark pasted text.

    In the background, nothing is changed: the modes are the shell's, and setting them would stop the process.
    """
    if modes is None or os.tcgetpgrp(STDIN) != os.getpgrp() or termios.tcgetattr(STDIN) == modes:
        return
    if is_terminal(sys.stderr):
        os.write(2, OFF.encode())
    termios.tcsetattr(STDIN, termios.TCSANOW, modes)
