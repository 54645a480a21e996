"""Decodes bytes to text, in the same way for prompts, messages, rows and transcripts."""

from dataclasses import dataclass

from metal_gen.errors import UsageError
from metal_gen.files.utf8 import decode
from metal_gen.files.utf8.decode import NotTextError

BYTE_ORDER_MARK = "\ufeff"
LINE_ENDS = ("\r\n", "\n")


@dataclass(frozen=True)
class Pipe:
    """How a text can reach a command that reads no other format: through a pipe from one that does.

    Attributes:
        name: Name of the file; None for standard input.
        reader: The command that reads the text from standard input.
    """

    name: str | None
    reader: str


def decode_text(
    data: bytes, what: str, *, is_start: bool = True, drops_line_end: bool = False, pipe: Pipe | None = None
) -> str:
    r"""Decode UTF-8.

    Args:
        data: A whole text, or a part that begins and ends with whole characters.
        what: Name of the text in error messages.
        is_start: Whether the data is the start of the text, where a byte order mark is removed.
        drops_line_end: Whether to remove one `\n` or `\r\n` at the end.
        pipe: How the text can be read if it has another format, for the hint.

    Raises:
        UsageError: The data is not UTF-8, or begins like a file that is no text.
    """
    if is_start:
        require_text(data, what, pipe)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(what, error.start, error, data if is_start else b"", pipe) from None
    if is_start:
        text = text.removeprefix(BYTE_ORDER_MARK)
    return without_line_end(text) if drops_line_end else text


def require_text(beginning: bytes, what: str, pipe: Pipe | None) -> None:
    """Refuse what begins like a file that is no text, even if the bytes are UTF-8.

    Raises:
        UsageError: It begins so.
    """
    try:
        decode.require_text(beginning)
    except NotTextError as error:
        raise _no_text(what, error, pipe) from None


def not_utf8(
    what: str, place: int, error: UnicodeDecodeError, beginning: bytes, pipe: Pipe | None
) -> UsageError:
    """Return the error of a text that is not UTF-8.

    Args:
        what: Name of the text.
        place: Position of the wrong byte in the text.
        error: What decoding raised.
        beginning: The first bytes of the text, which may tell what it is; empty if they are not known.
        pipe: As for `decode_text`.
    """
    return _no_text(what, decode.not_utf8(place, error, beginning), pipe)


def _no_text(what: str, error: NotTextError, pipe: Pipe | None) -> UsageError:
    hint = error.hint()
    if pipe is not None and error.format is not None and error.format.command:
        hint = f"read it through a pipe: {error.format.reading(pipe.name)} | metal-gen {pipe.reader}"
    return UsageError(f"{what} {error}", hint)


def without_line_end(text: str) -> str:
    r"""Remove one `\n` or `\r\n` at the end."""
    return next((text.removesuffix(end) for end in LINE_ENDS if text.endswith(end)), text)
