"""Why a text is no JSON, in words of its own: Python's are about its parser."""

import json

WORDS = {
    "Expecting value": "a value is missing",
    "Expecting ',' delimiter": "a comma or the closing bracket is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Expecting property name enclosed in double quotes": "a name in double quotes is missing",
    "Unterminated string starting at": "there is no closing quote for the text that begins",
    "Invalid control character at": "a control character is not escaped",
    "Invalid \\escape": "a backslash stands before what it cannot escape",
    "Invalid \\uXXXX escape": "\\u stands without four hexadecimal digits",
    "Extra data": "more follows the value",
    "Illegal trailing comma before end of object": "a comma stands after the last field",
    "Illegal trailing comma before end of array": "a comma stands after the last value",
}


def why_not_json(error: json.JSONDecodeError) -> str:
    """Say what is wrong and where: by its line and column, or its place in the only line."""
    words = WORDS.get(error.msg.removesuffix(": "), error.msg)
    if "\n" not in error.doc.rstrip("\n"):
        return f"{words} at character {error.pos + 1}"
    return f"{words} at line {error.lineno} column {error.colno}"
