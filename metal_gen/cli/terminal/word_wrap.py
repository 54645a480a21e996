"""Breaks lines between words, in a text that arrives in pieces and is never redrawn.

A word is held back until it is complete, because only then is it known whether it fits on the line. Possible
code and tables are left to the terminal. So are wide characters, between which a line may break anywhere.
"""

import re
from collections.abc import Callable

TAB_COLUMNS = 8
# Indent of a line of code outside fences.
CODE_INDENT = 4
FENCES = ("```", "~~~")
FENCE_LENGTH = 3
FENCE_BEGINNINGS = tuple(fence[:length] for fence in FENCES for length in range(1, FENCE_LENGTH + 1))
TABLE = "|"
PARTS = re.compile(r"\n|[ \t]+|[^ \t\n]+")


class WordWrap:
    """Wraps one text.

    Args:
        columns: Returns the width of the screen; 0 without one.
    """

    def __init__(self, columns: Callable[[], int]) -> None:
        self._columns = columns
        self._is_fenced = False
        self._begin_line()

    def feed(self, text: str) -> str:
        """Add the next piece; return what can be shown now."""
        return "".join(map(self._take, PARTS.findall(text)))

    def end_line(self) -> str:
        """Return the text held back, because the next piece begins a new line."""
        shown = self._place_word() + self._spaces[: self._room()]
        self._begin_line()
        return shown

    def _begin_line(self) -> None:
        self._column = 0
        self._spaces = self._word = ""
        self._is_verbatim = self._is_fenced

    def _take(self, part: str) -> str:
        if part == "\n":
            return self.end_line() + part
        if part[0] in " \t":
            shown = self._place_word()
            self._spaces += part
            return shown
        if not self._column and not self._word:
            indent = _width(self._spaces)
            self._is_verbatim = self._is_fenced or indent >= CODE_INDENT or part[0] == TABLE
        shown = ""
        for character in part:
            self._word += character
            if _width(character) > 1 or _width(self._word) > self._columns():
                shown += self._place_word()
        return shown + self._place_word() if self._is_verbatim and not self._may_be_fence() else shown

    def _may_be_fence(self) -> bool:
        """Return whether the line may begin with a code fence."""
        return not self._column and self._word[:FENCE_LENGTH] in FENCE_BEGINNINGS

    def _place_word(self) -> str:
        """Show the held word, on the next line if this one has no room for it."""
        spaces, word, columns = self._spaces, self._word, self._columns()
        if not word:
            return ""
        if not self._column and word.startswith(FENCES):
            self._is_fenced = not self._is_fenced
            self._is_verbatim = True
        self._spaces = self._word = ""
        begin, width = self._column + _width(spaces, self._column), _width(word)
        if spaces and self._column and not self._is_verbatim and begin + width > columns >= width:
            self._column = width
            return "\n" + word
        # A terminal wraps what is wider than it is.
        self._column = (begin + width - 1) % columns + 1 if columns else begin + width
        return spaces + word

    def _room(self) -> int | None:
        """Return the number of spaces that fit at the end of the line; None if the width is unknown."""
        columns = self._columns()
        return max(0, columns - self._column) if columns else None


def wrap_words(text: str, columns: int) -> str:
    """Break the lines of a whole text."""
    wrap = WordWrap(lambda: columns)
    return wrap.feed(text) + wrap.end_line()


def _width(text: str, column: int = 0) -> int:
    """Return the columns that a text takes, starting at a column."""
    if text.isascii() and "\t" not in text:
        return len(text)

    from rich.cells import cell_len

    width = 0
    for part in re.split("(\t)", text):
        width += TAB_COLUMNS - (column + width) % TAB_COLUMNS if part == "\t" else cell_len(part)
    return width
