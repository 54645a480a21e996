"""Messages of several lines.

A backslash at the end of a line continues the message on the next one. So does an unclosed block in triple
double quotes.
"""

PROMPT, CONTINUATION = "> ", "  "
QUOTES = '"""'
BACKSLASH = "\\"


def is_unfinished(text: str) -> bool:
    """Return whether a quoted block is open, at the start of the text or after a command."""
    body = _body(text)
    return body.startswith(QUOTES) and not (len(body) > len(QUOTES) and body.endswith(QUOTES))


def without_quotes(text: str) -> str:
    """Return the text without the quotes of a block and the line breaks next to them."""
    body = _body(text)
    if not body.startswith(QUOTES) or is_unfinished(text):
        return text
    before = text[: text.index(QUOTES)]
    block = body.removeprefix(QUOTES).removesuffix(QUOTES)
    return before + block.removeprefix("\n").removesuffix("\n")


def _body(text: str) -> str:
    """Return the text after a command, or the whole text."""
    if text.startswith("/"):
        text = text.partition(" ")[2]
    return text.strip()
