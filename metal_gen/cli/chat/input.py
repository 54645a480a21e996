"""Where a chat's messages come from: a line editor, a bare terminal, or a pipe."""

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
from metal_gen.text.decoding import decode_text

CHUNK_BYTES = 65536
# Of a message in a pipe; far more than any cache holds. A pipe may never end its line.
LONGEST_MESSAGE = 16 << 20
# What ends a message in a pipe.
MARK, NUL_MARK = b"\n", b"\0"
# Places in what `termios.tcgetattr` returns.
INPUT_FLAGS, LOCAL_FLAGS = 0, 3


class MessageSource(Protocol):
    """A person at a terminal."""

    def read(self) -> str:
        """Wait for a message.

        Raises:
            EOFError: There will be no more.
            KeyboardInterrupt: Ctrl-C was pressed, and what had been typed is dropped.
        """
        ...


class BareTerminal:
    """A terminal that cannot be drawn on: the editing is what the terminal itself has to offer."""

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
    """Whether the terminal is one for a line editor."""
    return console.stderr_is_terminal and os.environ.get("TERM", "dumb") != "dumb"


def terminal(console: Console, words: Mapping[str, Collection[str]], *, keeps_history: bool) -> MessageSource:
    """The line editor where there is something to draw on, else the terminal as it is.

    Args:
        console: Says what is there.
        words: What may follow each command.
        keeps_history: Have what is typed at hand in later chats.
    """
    if not can_be_drawn_on(console):
        return BareTerminal()

    from metal_gen.cli.chat.line_editor import LineEditor, open_history

    path = None
    try:
        path = open_history(os.environ) if keeps_history else None
    except OSError as error:
        console.detail(f"what is typed is not kept for later chats: {error.filename}: {error.strerror}")
    return LineEditor(path, words)


@contextmanager
def unseen_typing(terminal: int) -> Iterator[None]:
    """While an answer comes, keep what is typed or pasted for the next message, and off the screen.

    Args:
        terminal: Its file descriptor. A line editor turns to its own modes and back to these.
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
    """Read messages that each end with a mark; those of nothing but white space are passed over.

    Args:
        stream: Read as far as it has come.
        mark: A newline, or a NUL byte.

    Raises:
        UsageError: A message is not UTF-8.
        DoesNotFitError: It has more than LONGEST_MESSAGE bytes; the rest is not read.
    """
    for number, part in enumerate(_parts(stream, mark), 1):
        data = part.removesuffix(b"\r") if mark == MARK else part
        text = decode_text(data, f"message {number} on standard input", is_start=number == 1)
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
