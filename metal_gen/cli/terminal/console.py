"""Writes to the streams of a run: the text to stdout, everything else to stderr.

Handles the difference between a terminal and a pipe. A pipe receives the text's own bytes. A terminal
receives the text through rich, with control characters made visible.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Protocol, TextIO

from metal_gen.cli.terminal.streams import (
    columns,
    is_terminal,
    naming_what_cannot_be_written,
    print_unchanged,
    rich_console,
    shows_animation,
    shows_color,
)
from metal_gen.cli.terminal.word_wrap import WordWrap, wrap_words
from metal_gen.control_characters import visible
from metal_gen.errors import UsageError
from metal_gen.generation.record import encode_json

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from metal_gen.cli.terminal.markdown_stream import MarkdownStream

NAME = "metal-gen"
# Marks thinking where no color distinguishes it from the answer.
THINKING, DONE_THINKING = "Thinking...\n", "...done thinking.\n"


class _Bar(Protocol):
    """A progress bar below the messages."""

    def hidden(self) -> AbstractContextManager[None]:
        """Hide the bar while a message is written."""
        ...


class Console:
    """The standard streams of a run.

    Args:
        quiet: Write only errors to stderr.
        verbosity: Number of `-v` options given.

    Attributes:
        bar: The bar on the screen, which messages hide; None if there is none.
        on_screen: The console that used the screen last. A process has one screen, and the message about a
            signal comes from another thread.

    Raises:
        UsageError: Both quiet and verbose output are requested.
    """

    on_screen: ClassVar["Console | None"] = None

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
        """Whether stdout is a terminal."""
        return is_terminal(sys.stdout)

    @property
    def stderr_is_terminal(self) -> bool:
        """Whether stderr is a terminal."""
        return is_terminal(sys.stderr)

    @property
    def draws_bars(self) -> bool:
        """Whether bars may be drawn on the screen; a log never receives a bar."""
        return not self.quiet and shows_animation(sys.stderr)

    @property
    def unfinished_line(self) -> TextIO | None:
        """The stream whose last line is not finished; None if the cursor is at the start of a line."""
        return self._unfinished_line

    def use_markdown(self) -> None:
        """Render later text as Markdown, on a terminal."""
        if self.stdout_is_terminal:
            from metal_gen.cli.terminal.markdown_stream import MarkdownStream

            self._markdown = MarkdownStream(self._stdout, redraws=shows_animation(sys.stdout))

    def use_word_wrap(self) -> None:
        """Break the lines of later text between words, on a terminal."""
        self._breaks_at_words = True

    def require_stdout(self) -> None:
        """Raise a UsageError if standard output is closed, because the text would be lost."""
        if sys.stdout is None:
            raise UsageError("standard output is closed: the text has nowhere to go")

    def write_text(self, text: str) -> None:
        """Write a piece of the answer to stdout and flush it.

        Raises:
            MetalGenError: The disk is full, or the text cannot be written for another reason.
        """
        if not text:
            return
        with naming_what_cannot_be_written():
            if self.stdout_is_terminal:
                self._end_line_of_other(sys.stdout)
                self._show_text(visible(text))
            else:
                sys.stdout.buffer.write(text.encode())
            sys.stdout.flush()

    def _show_text(self, text: str) -> None:
        # Set before the text is shown: a signal may arrive in between.
        self._begin_line(sys.stdout)
        if self._markdown is not None:
            self._markdown.feed(text)
            return
        shown = self._wrapped(text, sys.stdout) if self._breaks_at_words else text
        print_unchanged(self._stdout, shown)
        if text.endswith("\n"):
            self._unfinished_line = None

    def write_thinking(self, text: str) -> None:
        """Write a piece of the model's thinking to stderr."""
        if not text or self.quiet or sys.stderr is None:
            return
        self._end_line_of_other(sys.stderr)
        if not self._is_thinking and not shows_color(sys.stderr):
            self._write_stderr(THINKING, "")
        self._is_thinking = True
        self._begin_line(sys.stderr)
        self._write_stderr(self._wrapped(visible(text), sys.stderr), "dim")
        if text.endswith("\n"):
            self._unfinished_line = None

    def _begin_line(self, stream: TextIO) -> None:
        self._unfinished_line = stream
        Console.on_screen = self

    def end_thinking(self, *, is_done: bool) -> None:
        """End the thinking, if there is any, before the answer or the end of the text."""
        if not self._is_thinking:
            return
        self._is_thinking = False
        self.end_text()
        if is_done and not shows_color(sys.stderr):
            self._write_stderr(DONE_THINKING, "")

    def _wrapped(self, text: str, stream: TextIO) -> str:
        """Return the part of the text so far that can be shown now."""
        if stream not in self._wraps:
            self._wraps[stream] = WordWrap(lambda: columns(stream))
        return self._wraps[stream].feed(text)

    def end_sample(self, mark: bytes = b"\0") -> None:
        """Separate one of several texts from the next: in a pipe by a mark, as `xargs -0` reads."""
        if self.stdout_is_terminal:
            self.end_text()
        else:
            with naming_what_cannot_be_written():
                sys.stdout.buffer.write(mark)
                sys.stdout.flush()

    def write_record(self, record: Mapping[str, object]) -> None:
        """Write a JSON object as a line to stderr, even in quiet mode, because the user asked for it."""
        if self.stderr_is_terminal:
            self.end_text()
        self._write_stderr(encode_json(record) + "\n", "")

    def write_reply(self, text: str) -> None:
        """Write lines that the user asked for to stderr."""
        self.end_text()
        lines = wrap_words(visible(text.rstrip("\n")), columns(sys.stderr))
        self._write_stderr(lines + "\n", "")

    def end_text(self) -> None:
        """Move the cursor to the start of a line; a pipe receives nothing."""
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
            print_unchanged(self._stdout, held + "\n")
            stream.flush()

    def detail(self, message: str) -> None:
        """Show a message at a terminal, or with `-v`."""
        if self.stderr_is_terminal or self.verbosity:
            self.note(message)

    def note(self, message: str) -> None:
        """Show a message, in a log too."""
        if not self.quiet:
            self._message(f"{NAME}: {message}", style="dim")

    def warn(self, message: str, hint: str = "", *, even_if_quiet: bool = False) -> None:
        """Show a warning."""
        if even_if_quiet or not self.quiet:
            self._message(f"{NAME}: {message}", hint, style="yellow")

    def error(self, message: str, hint: str = "") -> None:
        """Show an error."""
        self._message(f"{NAME}: {message}", hint, style="bold red")

    def ask(self, question: str, instead: str) -> bool:
        """Ask the user for confirmation; no answer means no.

        Args:
            question: The question, with a question mark.
            instead: The option that confirms without asking.

        Raises:
            UsageError: There is no terminal to ask at.
        """
        if not is_terminal(sys.stdin) or not self.stderr_is_terminal:
            raise UsageError(
                f"cannot ask for confirmation without a terminal: {question}",
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
        """Write text without control characters; if the log cannot be written, continue without it."""
        if sys.stderr is None:
            return
        with self.bar.hidden() if self.bar is not None else nullcontext():
            self._write_line(text, style)

    def _write_line(self, text: str, style: str) -> None:
        try:
            if style and shows_color(sys.stderr):
                print_unchanged(self._stderr, text, style)
            else:
                sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115

    def _end_line_of_other(self, stream: TextIO) -> None:
        """On a shared screen, start the answer on its own line after the thinking."""
        if self._unfinished_line is not None and self._unfinished_line is not stream:
            self.end_text()

    @cached_property
    def _stdout(self) -> "RichConsole":
        # Show a character that the terminal cannot encode as an escape instead of raising an error.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        return rich_console(sys.stdout)

    @cached_property
    def _stderr(self) -> "RichConsole":
        return rich_console(sys.stderr)


def _message_lines(text: str) -> str:
    """Format a message: wrapped for a terminal, one line for a log."""
    return wrap_words(visible(" ".join(text.splitlines())), columns(sys.stderr)) + "\n"
