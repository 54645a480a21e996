"""Shortens values from outside for messages.

A name or a value from a file may have a megabyte. A message is read by people, and a log keeps every line.
"""

MOST_LETTERS = 120
# Marks the omitted middle: the beginning and the end together tell more than either alone.
GAP = " ... "


# A quotation must stay on one line.
_BREAKS = str.maketrans({"\n": "\u240a", "\r": "\u240d"})


def excerpt(value: object, most_letters: int = MOST_LETTERS) -> str:
    """Return a value as part of a line, with the middle omitted if it is long.

    Args:
        value: A text is used as is, except for line breaks; anything else is converted with `str`.
        most_letters: Maximum length of the result.
    """
    try:
        text = str(value)
    except ValueError:  # an integer with more digits than Python converts
        return "a number of thousands of digits"
    except RecursionError:
        return "lists within lists"
    return shortened(text, most_letters).translate(_BREAKS)


def shortened(text: str, most_letters: int) -> str:
    """Return a text, with the middle omitted if it is longer than `most_letters` characters."""
    if len(text) <= most_letters:
        return text
    kept = most_letters - len(GAP)
    return text[: kept - kept // 3] + GAP + text[len(text) - kept // 3 :]
