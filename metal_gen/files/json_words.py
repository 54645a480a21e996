"""Explains why a text is not JSON. Python's own messages are about its parser."""

import json

WORDS = {
    "Expecting value": "a value is missing",
    "Expecting ',' delimiter": "a comma or the closing bracket is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Expecting property name enclosed in double quotes": "a name in double quotes is missing",
    "Unterminated string starting at": "the closing quote is missing for the text that begins",
    "Invalid control character at": "a control character is not escaped",
    "Invalid \\escape": "a backslash comes before a character that it cannot escape",
    "Invalid \\uXXXX escape": "\\u needs four hexadecimal digits",
    "Extra data": "more follows the value",
    "Illegal trailing comma before end of object": "there is a comma after the last field",
    "Illegal trailing comma before end of array": "there is a comma after the last value",
}


def why_not_json(error: json.JSONDecodeError) -> str:
    """Say what is wrong and where: at a line and column, or at a character of a single line."""
    words = WORDS.get(error.msg.removesuffix(": "), error.msg)
    if "\n" not in error.doc.rstrip("\n"):
        return f"{words} at character {error.pos + 1}"
    return f"{words} at line {error.lineno} column {error.colno}"
