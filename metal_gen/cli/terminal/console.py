"""Where words go: the text to stdout, everything else to stderr.

Owns the difference between a terminal and a pipe. A pipe gets the text's own bytes; a terminal
gets it through rich, with characters that would control the terminal made visible.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TextIO

from metal_gen.cli.terminal.streams import (
    columns,
    is_terminal,
    rich_console,
    shows_animation,
    shows_colour,
)
from metal_gen.cli.terminal.word_wrap import WordWrap, wrap_words
from metal_gen.control_characters import visible
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.generation.record import encode_json

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from metal_gen.cli.terminal.markdown_stream import MarkdownStream

NAME = "metal-gen"
# What stands around thinking where no colour tells it from the answer.
THINKING, DONE_THINKING = "Thinking...\n", "...done thinking.\n"


class _Bar(Protocol):
    """What is drawn below the messages."""

    def hidden(self) -> AbstractContextManager[None]:
        """Leave the screen to a message."""
        ...


class Console:
    """The three streams of a run.

    Args:
        quiet: Only errors go to stderr.
        verbosity: How many `-v` were given.

    Attributes:
        bar: On the screen now, to be hidden from messages.

    Raises:
        UsageError: Both are wanted.
    """

    def __init__(self, *, quiet: bool = False, verbosity: int = 0) -> None:
        if quiet and verbosity:
            raise UsageError("--quiet contradicts --verbose", "leave one of them out")
        self.quiet = quiet
        self.verbosity = verbosity
        self.bar: _Bar | None = None
        self._unfinished_line: TextIO | None = None
        self._is_thinking = False
        self._wraps: dict[TextIO, WordWrap] = {}
        self._breaks_at_words = False
        self._markdown: MarkdownStream | None = None

    @property
    def stdout_is_terminal(self) -> bool:
        """Whether a person reads the text as it comes."""
        return is_terminal(sys.stdout)

    @property
    def stderr_is_terminal(self) -> bool:
        """Whether a person reads the messages."""
        return is_terminal(sys.stderr)

    @property
    def draws_bars(self) -> bool:
        """Whether progress may be drawn over what is on the screen; a log never receives a bar."""
        return not self.quiet and shows_animation(sys.stderr)

    def use_markdown(self) -> None:
        """Render the text that is to come, where a terminal shows it."""
        if self.stdout_is_terminal:
            from metal_gen.cli.terminal.markdown_stream import MarkdownStream

            self._markdown = MarkdownStream(self._stdout, redraws=shows_animation(sys.stdout))

    def use_word_wrap(self) -> None:
        """Break the lines of the text that is to come between words, where a terminal shows it."""
        self._breaks_at_words = True

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
                self._show_text(visible(text))
            else:
                sys.stdout.buffer.write(text.encode())
            sys.stdout.flush()

    def _show_text(self, text: str) -> None:
        # Noted before it is shown: a signal may come between the two.
        self._unfinished_line = sys.stdout
        if self._markdown is not None:
            self._markdown.feed(text)
            return
        shown = self._wrapped(text, sys.stdout) if self._breaks_at_words else text
        _print_unchanged(self._stdout, shown)
        if text.endswith("\n"):
            self._unfinished_line = None

    def write_thinking(self, text: str) -> None:
        """Put a piece of the model's thinking on stderr."""
        if not text or self.quiet or sys.stderr is None:
            return
        self._end_line_of_other(sys.stderr)
        if not self._is_thinking and not shows_colour(sys.stderr):
            self._write_stderr(THINKING, "")
        self._is_thinking = True
        self._unfinished_line = sys.stderr
        self._write_stderr(self._wrapped(visible(text), sys.stderr), "dim")
        if text.endswith("\n"):
            self._unfinished_line = None

    def end_thinking(self, *, is_done: bool) -> None:
        """Leave the thinking, where there is any, for the answer or for the end of the text."""
        if not self._is_thinking:
            return
        self._is_thinking = False
        self.end_text()
        if is_done and not shows_colour(sys.stderr):
            self._write_stderr(DONE_THINKING, "")

    def _wrapped(self, text: str, stream: TextIO) -> str:
        """What of a piece can be shown by now."""
        if stream not in self._wraps:
            self._wraps[stream] = WordWrap(lambda: columns(stream))
        return self._wraps[stream].feed(text)

    def end_sample(self, mark: bytes = b"\0") -> None:
        """Tell one of several texts from the next: in a pipe by a mark, such as `xargs -0` reads."""
        if self.stdout_is_terminal:
            self.end_text()
        else:
            with _naming_what_cannot_be_written():
                sys.stdout.buffer.write(mark)
                sys.stdout.flush()

    def write_record(self, record: Mapping[str, object]) -> None:
        """Put a JSON object on a line of stderr, also when quiet: it has been asked for."""
        if self.stderr_is_terminal:
            self.end_text()
        self._write_stderr(encode_json(record) + "\n", "")

    def write_reply(self, text: str) -> None:
        """Put lines on stderr that a person has asked for."""
        self.end_text()
        lines = wrap_words(visible(text.rstrip("\n")), columns(sys.stderr))
        self._write_stderr(lines + "\n", "")

    def end_text(self) -> None:
        """Leave the cursor at the start of a line; a pipe gets nothing added."""
        stream, self._unfinished_line = self._unfinished_line, None
        wraps, self._wraps = self._wraps, {}
        if stream is None:
            return
        held = wraps[stream].end_line() if stream in wraps else ""
        if stream is not sys.stdout:
            self._write_stderr(held + "\n", "dim")
        elif self._markdown is not None:
            self._markdown.finish()
            stream.flush()
        else:
            _print_unchanged(self._stdout, held + "\n")
            stream.flush()

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

    def ask(self, question: str, instead: str) -> bool:
        """Ask a person for a yes; no answer is a no.

        Args:
            question: Ends with a question mark.
            instead: The option that answers it where there is nobody to ask.

        Raises:
            UsageError: There is nobody to ask.
        """
        if not is_terminal(sys.stdin) or not self.stderr_is_terminal:
            raise UsageError(
                f"cannot ask for confirmation, there is no terminal: {question}",
                f"use {instead} to continue without asking",
            )
        self.end_text()
        self._write_stderr(visible(f"{NAME}: {question} [y/N] "), "")
        answer = ""
        try:
            answer = sys.stdin.readline()
        finally:
            if not answer.endswith("\n"):
                self._write_stderr("\n", "")
        return answer.strip().lower() in ("y", "yes")

    def _message(self, line: str, hint: str = "", *, style: str) -> None:
        self.end_text()
        self._write_stderr(_message_lines(line), style)
        if hint:
            self._write_stderr(_message_lines(f"hint: {hint}"), "")

    def _write_stderr(self, text: str, style: str) -> None:
        """Write what has been made visible; a log that cannot be written ends nothing."""
        if sys.stderr is None:
            return
        with self.bar.hidden() if self.bar is not None else nullcontext():
            self._write_line(text, style)

    def _write_line(self, text: str, style: str) -> None:
        try:
            if style and shows_colour(sys.stderr):
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
        return rich_console(sys.stdout)

    @cached_property
    def _stderr(self) -> "RichConsole":
        return rich_console(sys.stderr)


def _message_lines(text: str) -> str:
    """A message as lines of a terminal, as one line of a log."""
    return wrap_words(visible(" ".join(text.splitlines())), columns(sys.stderr)) + "\n"


@contextmanager
def _naming_what_cannot_be_written() -> Iterator[None]:
    """A full disk is a user's trouble, not the program's; a closed pipe is none at all."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise MetalGenError(f"the text cannot be written: {error.strerror}") from error


def _print_unchanged(console: "RichConsole", text: str, style: str = "") -> None:
    """Print through rich without wrapping a line or expanding a tab."""
    from rich.segment import Segment, Segments

    segment = Segment(text, console.get_style(style) if style else None)
    console.print(Segments([segment]), end="", soft_wrap=True)
