"""Decodes UTF-8, and says what bytes are that are no text."""

from metal_gen.files.utf8.other_formats import FileFormat, format_of

TEXT_ONLY = "only text in UTF-8 can be read here"


class NotTextError(ValueError):
    """Bytes that are not UTF-8 text. The message continues after a name: `is compressed with gzip, not text`.

    Args:
        phrase: What the bytes are.
        format: Their format; None if it is not recognized.
        converts: Whether a change of the encoding may make a text of them.
    """

    def __init__(self, phrase: str, format: FileFormat | None = None, *, converts: bool = False) -> None:
        super().__init__(phrase)
        self.format = format
        self._converts = converts

    def hint(self, name: str | None = None) -> str:
        """Return what to do; with the name of the file, a command that can be run as it is."""
        if self.format is None:
            return "convert it with iconv -f ENCODING -t utf-8" if self._converts else TEXT_ONLY
        if not self.format.command:
            return TEXT_ONLY
        if name is None:
            return f"convert it with {self.format.command.replace('{}', 'FILE')}"
        return f"convert it with {self.format.reading(name)}"


def decode_utf8(data: bytes) -> str:
    """Return the text of a whole file, without a byte order mark.

    Raises:
        NotTextError: It is not UTF-8, or begins like a file that is no text.
    """
    require_text(data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(error.start, error, data) from None


def require_text(beginning: bytes) -> None:
    """Refuse what begins like a file that is no text, even if the bytes are UTF-8.

    Raises:
        NotTextError: It begins so.
    """
    format = format_of(beginning)
    if format is not None and not format.may_be_text:
        raise _other_format(format)


def not_utf8(place: int, error: UnicodeDecodeError, beginning: bytes) -> NotTextError:
    """Return the error of bytes that are not UTF-8.

    Args:
        place: Position of the wrong byte in the file.
        error: What decoding raised.
        beginning: The first bytes of the file, which may tell what it is; empty if they are not known.
    """
    if (format := format_of(beginning)) is not None:
        return _other_format(format)
    if b"\0" in beginning:
        return NotTextError("is a binary file, not text")
    return NotTextError(f"is not UTF-8: byte {place} is 0x{error.object[error.start]:02x}", converts=True)


def _other_format(format: FileFormat) -> NotTextError:
    return NotTextError(f"is {format.what}, not {format.is_unlike}", format)
