"""Renders Markdown on a terminal as it arrives.

Keeps track of what has been drawn. A complete block is written once and never changed. Only the last block is
redrawn as it grows, and no more of it than fits on the screen, so that nothing is left in the scrollback. A
block higher than the screen shows its end, and is written whole when it is complete.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console as RichConsole
from rich.control import Control
from rich.markdown import Markdown
from rich.segment import ControlType, Segment, Segments

from metal_gen.control_characters import visible

DRAW_INTERVAL_S = 0.08
# Drawing a large table takes long: wait this many times as long before drawing again, so that most of the
# time is left for generating.
REST_AFTER_DRAWING = 9
# Longer than any text that begins a block, such as "   123456789. ": the kind of a longer line is certain.
LONGEST_MARKER = 16
CODE_THEME = "ansi_dark"
LISTS = ("bullet_list_open", "ordered_list_open")

Line = list[Segment]


@dataclass(frozen=True)
class _Block:
    """A top-level block, or one item of a top-level list.

    Attributes:
        line: Its first line, counted from the first line not written yet.
        tokens: The tokens to render.
        number: Number of an item in a numbered list.
        continues: Whether it is an item after the first, without an empty line before it.
    """

    line: int
    tokens: list[Token]
    number: int | None = None
    continues: bool = False


class MarkdownStream:
    """Renders a text that arrives in pieces.

    Args:
        console: The console of the terminal.
        redraws: Whether drawn lines may be overwritten; if not, a block appears when it is complete.
    """

    def __init__(self, console: RichConsole, *, redraws: bool) -> None:
        self._console = console
        self._redraws = redraws
        # Elements that would be invisible, such as HTML, stay plain text.
        self._parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
        self._parser.disable(["reference", "image"])
        self._next_s = 0.0
        self._begin()

    def _begin(self) -> None:
        self._source = ""
        self._wrote = False
        self._following: _Block | None = None
        self._drawn: list[Line] = []

    def feed(self, text: str) -> None:
        """Add the next piece; its control characters must have been made visible."""
        self._source += text
        if time.perf_counter() >= self._next_s if self._redraws else "\n" in text:
            began_s = time.perf_counter()
            self._update(is_whole=False)
            ended_s = time.perf_counter()
            self._next_s = ended_s + max(DRAW_INTERVAL_S, REST_AFTER_DRAWING * (ended_s - began_s))

    def finish(self) -> None:
        """Write the rest, and leave the cursor at the start of a line."""
        self._update(is_whole=True)
        self._begin()

    def _update(self, *, is_whole: bool) -> None:
        """Write the complete blocks, and draw the rest."""
        blocks = self._blocks()
        complete = len(blocks) if is_whole else self._count_complete(blocks)
        rendered = [self._render(block, is_first=block is blocks[0]) for block in blocks]
        written = [line for lines in rendered[:complete] for line in lines]
        drawn = [line for lines in rendered[complete:] for line in lines] if self._redraws else []
        self._write(written, drawn[-max(1, self._console.height - 1) :])
        if 0 < complete < len(blocks):
            self._wrote = True
            self._following = blocks[complete]
            self._source = "".join(self._lines()[blocks[complete].line :])

    def _lines(self) -> list[str]:
        return self._source.splitlines(keepends=True)

    def _count_complete(self, blocks: Sequence[_Block]) -> int:
        """Return the number of blocks that cannot change: those before one that has certainly begun."""
        if not blocks:
            return 0
        beginning = self._lines()[blocks[-1].line]
        is_certain = beginning.endswith("\n") or len(beginning) > LONGEST_MARKER
        return max(0, len(blocks) - (1 if is_certain else 2))

    def _blocks(self) -> list[_Block]:
        tokens = self._parser.parse(self._source)
        _disarm(tokens)
        blocks: list[_Block] = []
        for group in _groups(tokens, level=0):
            if group[0].type in LISTS:
                blocks += self._items(group, follows=self._following if not blocks else None)
            else:
                blocks.append(_Block(_first_line(group), group))
        return blocks

    def _items(self, group: Sequence[Token], follows: _Block | None) -> Iterator[_Block]:
        """Yield the items of a list as lists of one; `follows` is the first item if it was seen before."""
        opening, closing = group[0], group[-1]
        number = int(opening.attrs.get("start", 1)) if opening.type == "ordered_list_open" else None
        if follows is not None and follows.number is not None and number is not None:
            number = follows.number
        for index, item in enumerate(_groups(group[1:-1], level=opening.level + 1)):
            alone = copy(opening)
            own = None if number is None else number + index
            alone.attrs = {} if own is None else {"start": own}
            continues = index > 0 or (follows is not None and follows.continues)
            yield _Block(_first_line(item), [alone, *item, closing], own, continues)

    def _render(self, block: _Block, *, is_first: bool) -> list[Line]:
        markdown = Markdown("", code_theme=CODE_THEME, hyperlinks=False)
        markdown.parsed = block.tokens
        lines = [_without_padding(line) for line in self._console.render_lines(markdown, pad=False)]
        while lines and not lines[0]:
            del lines[0]
        while lines and not lines[-1]:
            del lines[-1]
        is_spaced = not block.continues and (self._wrote or not is_first)
        return [[], *lines] if is_spaced else lines

    def _write(self, written: Sequence[Line], drawn: Sequence[Line]) -> None:
        """Write lines in place of the drawn ones, and draw others below."""
        segments = [self._erasure()] if self._drawn else []
        for line in written:
            segments += [*line, Segment.line()]
        for index, line in enumerate(drawn):
            segments += [*([Segment.line()] if index else []), *line]
        self._drawn = list(drawn)
        self._console.print(Segments(segments), end="", soft_wrap=True)

    def _erasure(self) -> Segment:
        """Return the controls that erase the drawing; a narrower terminal has wrapped its lines."""
        width = self._console.width
        rows = sum(max(1, -(-Segment.get_line_length(line) // width)) for line in self._drawn)
        up = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * (rows - 1)
        return Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up).segment


def _groups(tokens: Iterable[Token], level: int) -> Iterator[list[Token]]:
    """Yield the tokens of each element of a level."""
    group: list[Token] = []
    for token in tokens:
        group.append(token)
        if token.level == level and token.nesting <= 0:
            yield group
            group = []


def _first_line(group: Sequence[Token]) -> int:
    return group[0].map[0] if group[0].map is not None else 0


def _disarm(tokens: Iterable[Token]) -> None:
    """Make characters visible that come from references such as `&#13;`."""
    for token in tokens:
        token.content = visible(token.content)
        _disarm(token.children or ())


def _without_padding(line: Line) -> Line:
    """Return a line without invisible spaces at its end."""
    while line:
        last = line[-1]
        text = last.text if last.style is not None and last.style.bgcolor else last.text.rstrip(" ")
        if text:
            return [*line[:-1], Segment(text, last.style)]
        line = line[:-1]
    return line
