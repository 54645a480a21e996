"""The sources of a chat's messages: a line editor, a bare terminal, or a pipe."""

import os
import sys
import termios
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO, Protocol

from metal_gen.cli.chat.multiline import BACKSLASH, CONTINUATION, PROMPT, is_unfinished, without_quotes
from metal_gen.cli.chat.paste_marks import mark_pastes
from metal_gen.cli.terminal.console import Console
from metal_gen.errors import DoesNotFitError
from metal_gen.text.decoding import Pipe, decode_text

CHUNK_BYTES = 65536
# Limit of a message in a pipe, far more than any cache holds: a pipe may never end its line.
LONGEST_MESSAGE = 16 << 20
# Ends a message in a pipe.
MARK, NUL_MARK = b"\n", b"\0"
# Indices into the result of `termios.tcgetattr`.
INPUT_FLAGS, LOCAL_FLAGS = 0, 3


class MessageSource(Protocol):
    """A user at a terminal."""

    def read(self) -> str:
        """Wait for a message.

        Raises:
            EOFError: The input has ended.
            KeyboardInterrupt: Ctrl-C was pressed; the text typed so far is dropped.
        """
        ...


class BareTerminal:
    """A terminal without line editor; editing is limited to what the terminal itself offers."""

    def read(self) -> str:
        """See `MessageSource`."""
        try:
            text = self._line(PROMPT)
            while text.endswith(BACKSLASH) or is_unfinished(text):
                text = text.removesuffix(BACKSLASH) + "\n" + self._line(CONTINUATION)
        except (EOFError, KeyboardInterrupt):
            self._show("\n")
            raise
        return without_quotes(text)

    def _line(self, prompt: str) -> str:
        self._show(prompt)
        line = sys.stdin.buffer.readline()
        if not line:
            raise EOFError
        return line.decode(errors="replace").rstrip("\r\n")

    def _show(self, text: str) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            sys.stderr.write(text)
            sys.stderr.flush()


def can_be_drawn_on(console: Console) -> bool:
    """Return whether the terminal supports a line editor."""
    return console.stderr_is_terminal and os.environ.get("TERM", "dumb") != "dumb"


def terminal(console: Console, words: Mapping[str, Collection[str]], *, keeps_history: bool) -> MessageSource:
    """Return a line editor if the terminal supports one, otherwise the bare terminal.

    Args:
        console: The console of the chat.
        words: The words that may follow each command.
        keeps_history: Keep what is typed for later chats.
    """
    if not can_be_drawn_on(console):
        return BareTerminal()

    from metal_gen.cli.chat.line_editor import LineEditor, open_history

    path = None
    try:
        path = open_history(os.environ) if keeps_history else None
    except OSError as error:
        console.detail(f"typed messages are not kept for later chats: {error.filename}: {error.strerror}")
    return LineEditor(path, words)


@contextmanager
def unseen_typing(terminal: int) -> Iterator[None]:
    """Keep what is typed or pasted during an answer for the next message, and off the screen.

    Args:
        terminal: File descriptor of the terminal. A line editor sets its own modes and restores these.
    """
    before = termios.tcgetattr(terminal)
    changed = list(before)
    changed[INPUT_FLAGS] &= ~termios.ICRNL
    changed[LOCAL_FLAGS] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(terminal, termios.TCSADRAIN, changed)
    mark_pastes(on=True)
    try:
        yield
    finally:
        mark_pastes(on=False)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def piped_messages(stream: BinaryIO, mark: bytes) -> Iterator[str]:
    """Read messages that each end with a mark; blank messages are skipped.

    Args:
        stream: Source of the messages; read as data arrives.
        mark: A newline, or a NUL byte.

    Raises:
        UsageError: A message is not UTF-8.
        DoesNotFitError: A message has more than LONGEST_MESSAGE bytes; the rest is not read.
    """
    for number, part in enumerate(_parts(stream, mark), 1):
        data = part.removesuffix(b"\r") if mark == MARK else part
        what = f"message {number} on standard input"
        text = decode_text(data, what, is_start=number == 1, pipe=Pipe(None, "chat ..."))
        if text.strip():
            yield text


def _parts(stream: BinaryIO, mark: bytes) -> Iterator[bytes]:
    begun = bytearray()
    while chunk := stream.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
        *ends, beginning = chunk.split(mark)
        for end in ends:
            yield bytes(begun + end)
            begun.clear()
        begun += beginning
        if len(begun) > LONGEST_MESSAGE:
            raise DoesNotFitError(
                f"a message on standard input does not fit: it has more than {LONGEST_MESSAGE:,} bytes",
                "end each message with a newline",
            )
    yield bytes(begun)
