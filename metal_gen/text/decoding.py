"""Decodes bytes to text, in the same way for prompts, messages, rows and transcripts."""

from codecs import BOM_UTF16_BE, BOM_UTF16_LE

from metal_gen.errors import UsageError

BYTE_ORDER_MARK = "\ufeff"
LINE_ENDS = ("\r\n", "\n")


def decode_text(data: bytes, what: str, *, is_start: bool = True, drops_line_end: bool = False) -> str:
    r"""Decode UTF-8.

    Args:
        data: A whole text, or a part that begins and ends with whole characters.
        what: Name of the text in error messages.
        is_start: Whether the data is the start of the text, where a byte order mark is removed.
        drops_line_end: Whether to remove one `\n` or `\r\n` at the end.

    Raises:
        UsageError: The data is not UTF-8.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        encoding = "utf-16" if data.startswith((BOM_UTF16_BE, BOM_UTF16_LE)) else "ENCODING"
        raise UsageError(
            f"{what} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}",
            f"convert it with iconv -f {encoding} -t utf-8",
        ) from None
    if is_start:
        text = text.removeprefix(BYTE_ORDER_MARK)
    return without_line_end(text) if drops_line_end else text


def without_line_end(text: str) -> str:
    r"""Remove one `\n` or `\r\n` at the end."""
    return next((text.removesuffix(end) for end in LINE_ENDS if text.endswith(end)), text)
