"""The text of `metal-gen score`: a file or standard input, read in pieces, however long it is."""

import codecs
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from metal_gen.cli.output.output_file import STREAM
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.streams import is_terminal
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.files.missing_file import how_to_read
from metal_gen.text.decoding import BYTE_ORDER_MARK, Pipe, not_utf8, require_text

PIECE_BYTES = 1 << 16
# Of a file, to tell what it is.
BEGINNING_BYTES = 1 << 10
_SCORES_WORDS = "name a file; `echo '...' | metal-gen score` scores the words themselves"


def has_piped_input() -> bool:
    """Whether standard input is a pipe or a file; a terminal, a device and a closed one are not."""
    if sys.stdin is None:
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


@contextmanager
def text_pieces(
    name: str, console: Console, what: str = "text", reader: str = "score ..."
) -> Iterator[Iterator[str]]:
    """Open a text.

    Args:
        name: Name of a file; `-` is standard input.
        console: Says what is waited for.
        what: Name of the text in errors.
        reader: The command that reads it from a pipe, for hints.

    Yields:
        Its pieces, without a byte order mark; the first has been read.

    Raises:
        UsageError: It cannot be read, is empty, or is not UTF-8.
    """
    if name == STREAM:
        if sys.stdin is None:
            raise UsageError("- reads standard input, which is closed")
        if is_terminal(sys.stdin):
            console.note("reading the text from the terminal; Ctrl-D on a line of its own ends it")
        yield _started(_pieces(sys.stdin.buffer, "standard input", Pipe(None, reader)), what)
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115
    except OSError as error:
        hint = how_to_read(error, Path(name)) if not _is_sentence(name) else _SCORES_WORDS
        raise UsageError(f"the {what} {name} cannot be read: {error.strerror}", hint) from None
    except ValueError as error:
        raise UsageError(f"the {what} {name} cannot be read: {error}") from None
    with file:
        yield _started(_pieces(file, name, Pipe(name, reader)), what)


def _is_sentence(name: str) -> bool:
    """Return whether words were given where a file is named."""
    return " " in name.strip() and not Path(name).exists()


def _started(pieces: Iterator[str], what: str) -> Iterator[str]:
    """Read the first piece now, so that a text that cannot be scored is refused before a model is loaded."""
    first = next(pieces, "")
    if not first:
        raise UsageError("the text is empty" if what == "text" else f"there are no {what}")

    def joined() -> Iterator[str]:
        yield first
        yield from pieces

    return joined()


def _pieces(file: BinaryIO, name: str, pipe: Pipe) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    place, is_start, beginning = 0, True, b""
    while True:
        try:
            data = file.read(PIECE_BYTES)
        except OSError as error:
            raise MetalGenError(f"{name} cannot be read: {error.strerror}") from error
        if not place:
            beginning = data[:BEGINNING_BYTES]
            require_text(beginning, name, pipe)
        held = len(decoder.getstate()[0])
        try:
            piece = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise not_utf8(name, place - held + error.start, error, beginning, pipe) from None
        place += len(data)
        if is_start and piece:
            piece, is_start = piece.removeprefix(BYTE_ORDER_MARK), False
        if piece:
            yield piece
        if not data:
            return
