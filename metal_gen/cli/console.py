"""Where words go: the text to stdout, everything else to stderr.

Owns the difference between a terminal and a pipe. A pipe gets the text's own bytes; a terminal
gets it through rich, with characters that would control the terminal made visible.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

from metal_gen.errors import MetalGenError, UsageError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

NAME = "metal-gen"

# C0 but tab and newline, DEL, C1, and the marks that reorder or hide text.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Replace what a terminal would obey by what a person can see: ESC becomes U+241B."""
    return CONTROLS.sub(lambda match: _picture(ord(match[0])), text)


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


class Console:
    """The three streams of a run.

    Args:
        quiet: Only errors go to stderr.
        verbosity: How many `-v` were given.
    """

    def __init__(self, *, quiet: bool = False, verbosity: int = 0) -> None:
        self.quiet = quiet
        self.verbosity = verbosity
        self._unfinished_line: TextIO | None = None

    @property
    def stdout_is_terminal(self) -> bool:
        """Whether a person reads the text as it comes."""
        return sys.stdout is not None and sys.stdout.isatty()

    @property
    def stderr_is_terminal(self) -> bool:
        """Whether a person reads the messages; a log file gets no animation and no colour."""
        return sys.stderr is not None and sys.stderr.isatty()

    def require_stdout(self) -> None:
        """Refuse to generate a text that nobody will get."""
        if sys.stdout is None:
            raise UsageError("standard output is closed: the text has nowhere to go")

    def write_text(self, text: str) -> None:
        """Put a piece of the answer on stdout, at once.

        Raises:
            MetalGenError: The disk behind it is full, or it cannot be written for another reason.
        """
        if not text:
            return
        with _naming_what_cannot_be_written():
            if self.stdout_is_terminal:
                self._end_line_of_other(sys.stdout)
                _print_unchanged(self._stdout, visible(text))
                self._unfinished_line = None if text.endswith("\n") else sys.stdout
            else:
                sys.stdout.buffer.write(text.encode())
            sys.stdout.flush()

    def write_thinking(self, text: str) -> None:
        """Put a piece of the model's thinking on stderr."""
        if not text or self.quiet or sys.stderr is None:
            return
        self._end_line_of_other(sys.stderr)
        self._write_stderr(visible(text), "dim")
        self._unfinished_line = None if text.endswith("\n") else sys.stderr

    def end_sample(self, mark: bytes = b"\0") -> None:
        """Tell one of several texts from the next: in a pipe by a mark, such as `xargs -0` reads."""
        if self.stdout_is_terminal:
            self.end_text()
        else:
            with _naming_what_cannot_be_written():
                sys.stdout.buffer.write(mark)
                sys.stdout.flush()

    def write_record(self, record: dict[str, object]) -> None:
        """Put a JSON object on a line of stderr, also when quiet: it has been asked for."""
        if self.stderr_is_terminal:
            self.end_text()
        self._write_stderr(json.dumps(record) + "\n", "")

    def write_reply(self, text: str) -> None:
        """Put lines on stderr that a person has asked for."""
        self.end_text()
        self._write_stderr(visible(text.rstrip("\n")) + "\n", "")

    def end_text(self) -> None:
        """Leave the cursor at the start of a line; a pipe gets nothing added."""
        if self._unfinished_line is not None:
            self._unfinished_line.write("\n")
            self._unfinished_line.flush()
            self._unfinished_line = None

    def detail(self, message: str) -> None:
        """Say what a person at a terminal, or one who asked with `-v`, wants to know."""
        if self.stderr_is_terminal or self.verbosity:
            self.note(message)

    def note(self, message: str) -> None:
        """Say what should be known, in a log too."""
        if not self.quiet:
            self._message(f"{NAME}: {message}", style="dim")

    def warn(self, message: str, hint: str = "") -> None:
        """Say what may surprise."""
        if not self.quiet:
            self._message(f"{NAME}: {message}", hint, style="yellow")

    def error(self, message: str, hint: str = "") -> None:
        """Say why there is no more."""
        self._message(f"{NAME}: {message}", hint, style="bold red")

    def _message(self, line: str, hint: str = "", *, style: str) -> None:
        self.end_text()
        self._write_stderr(visible(" ".join(line.splitlines())) + "\n", style)
        if hint:
            self._write_stderr(visible(" ".join(f"hint: {hint}".splitlines())) + "\n", "")

    def _write_stderr(self, text: str, style: str) -> None:
        """Write what has been made visible; a log that cannot be written ends nothing."""
        if sys.stderr is None:
            return
        try:
            if self.stderr_is_terminal and "NO_COLOR" not in os.environ:
                _print_unchanged(self._stderr, text, style)
            else:
                sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115

    def _end_line_of_other(self, stream: TextIO) -> None:
        """On a shared screen the answer starts on a line of its own after the thinking."""
        if self._unfinished_line is not None and self._unfinished_line is not stream:
            self.end_text()

    @cached_property
    def _stdout(self) -> "RichConsole":
        # A terminal that cannot show a character gets its number, not an error.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        return _rich_console(sys.stdout)

    @cached_property
    def _stderr(self) -> "RichConsole":
        return _rich_console(sys.stderr)


@contextmanager
def _naming_what_cannot_be_written() -> Iterator[None]:
    """A full disk is a user's trouble, not the program's; a closed pipe is none at all."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise MetalGenError(f"the text cannot be written: {error.strerror}") from error


def _rich_console(stream: TextIO) -> "RichConsole":
    from rich.console import Console as RichConsole

    return RichConsole(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _print_unchanged(console: "RichConsole", text: str, style: str = "") -> None:
    """Print through rich without wrapping a line or expanding a tab."""
    from rich.segment import Segment, Segments

    segment = Segment(text, console.get_style(style) if style else None)
    console.print(Segments([segment]), end="", soft_wrap=True)
