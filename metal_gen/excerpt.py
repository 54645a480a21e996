"""What a message quotes of bytes from outside: a bounded part of it.

A name or a value from a file may have a megabyte. A message is for a person, and a log keeps every line.
"""

MOST_LETTERS = 120
# What stands for what was left out of a text: its beginning and its end tell more than either alone.
GAP = " ... "


def excerpt(value: object, most_letters: int = MOST_LETTERS) -> str:
    """Return a value as text, its middle left out where it is long.

    Args:
        value: A text is quoted as it is; anything else as `str` writes it.
        most_letters: Length of the result at most.
    """
    try:
        text = str(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
    except RecursionError:
        return "lists within lists"
    if len(text) <= most_letters:
        return text
    kept = most_letters - len(GAP)
    return text[: kept - kept // 3] + GAP + text[len(text) - kept // 3 :]
