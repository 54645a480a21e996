"""From bytes to text: prompts, messages, rows and transcripts are decoded alike."""

from codecs import BOM_UTF16_BE, BOM_UTF16_LE

from metal_gen.errors import UsageError

BYTE_ORDER_MARK = "\ufeff"
LINE_ENDS = ("\r\n", "\n")


def decode_text(data: bytes, what: str, *, is_start: bool = True, drops_line_end: bool = False) -> str:
    r"""Decode UTF-8.

    Args:
        data: All of a text, or a part that begins and ends with whole characters.
        what: What to call it in a refusal.
        is_start: Nothing comes before it: a byte order mark is no part of the text.
        drops_line_end: One `\n` or `\r\n` at the end is no part of it either.

    Raises:
        UsageError: It is not UTF-8.
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
    r"""Take away one `\n` or `\r\n` at the end."""
    return next((text.removesuffix(end) for end in LINE_ENDS if text.endswith(end)), text)
