"""What a message quotes of bytes from outside: a bounded part of it.

A name or a value from a file may have a megabyte. A message is for a person, and a log keeps every line.
"""

MOST_LETTERS = 120
# What stands for what was left out of a text: its beginning and its end tell more than either alone.
GAP = " ... "


# A quotation is part of a line.
_BREAKS = str.maketrans({"\n": "\u240a", "\r": "\u240d"})


def excerpt(value: object, most_letters: int = MOST_LETTERS) -> str:
    """Return a value as a part of a line, its middle left out where it is long.

    Args:
        value: A text is quoted as it is, but for breaks of lines; anything else as `str` writes it.
        most_letters: Length of the result at most.
    """
    try:
        text = str(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
    except RecursionError:
        return "lists within lists"
    return shortened(text, most_letters).translate(_BREAKS)


def shortened(text: str, most_letters: int) -> str:
    """Return a text, its middle left out where it is longer than so many letters."""
    if len(text) <= most_letters:
        return text
    kept = most_letters - len(GAP)
    return text[: kept - kept // 3] + GAP + text[len(text) - kept // 3 :]
