"""Messages of several lines, as they are typed.

A backslash at the end of a line continues the message on the next one. So does a block between three double
quotes that is not closed yet.
"""

PROMPT, CONTINUATION = "> ", "  "
QUOTES = '"""'
BACKSLASH = "\\"


def is_unfinished(text: str) -> bool:
    """Whether a block has been begun, at the start or as what a command is given, and not ended."""
    body = _body(text)
    return body.startswith(QUOTES) and not (len(body) > len(QUOTES) and body.endswith(QUOTES))


def without_quotes(text: str) -> str:
    """The text, less the quotes of a block and the line breaks beside them."""
    body = _body(text)
    if not body.startswith(QUOTES) or is_unfinished(text):
        return text
    before = text[: text.index(QUOTES)]
    block = body.removeprefix(QUOTES).removesuffix(QUOTES)
    return before + block.removeprefix("\n").removesuffix("\n")


def _body(text: str) -> str:
    """What comes after a command, or else all."""
    if text.startswith("/"):
        text = text.partition(" ")[2]
    return text.strip()
