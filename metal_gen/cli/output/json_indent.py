"""Indents JSON as it arrives, for human readers."""


class JsonIndenter:
    """Puts each value of a JSON text on its own line.

    Args:
        spaces: Indentation of each level.
    """

    def __init__(self, spaces: int) -> None:
        self._spaces = spaces
        self._depth = 0
        self._in_string = self._is_escaped = self._opens = False

    def feed(self, text: str) -> str:
        """Return the next part of the text, indented. The parts can be cut anywhere."""
        return "".join(map(self._next, text))

    def _next(self, character: str) -> str:
        if self._in_string:
            ends = character == '"' and not self._is_escaped
            self._in_string = not ends
            self._is_escaped = character == "\\" and not self._is_escaped
            return character
        if character.isspace():
            return ""
        if character in "}]":
            self._depth -= 1
            before = "" if self._opens else self._new_line()
            self._opens = False
            return before + character
        # Only now is it known whether the open object or array is empty.
        before = self._new_line() if self._opens else ""
        self._opens = character in "{["
        self._depth += self._opens
        self._in_string = character == '"'
        after = {",": self._new_line(), ":": " "}.get(character, "")
        return before + character + after

    def _new_line(self) -> str:
        return "\n" + " " * (self._spaces * self._depth)
