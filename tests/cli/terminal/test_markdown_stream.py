"""Tests Markdown rendered as it arrives: the final screen and scrollback are correct."""

import random
import re

import pytest
from cli_process import run_cli, run_in_terminal
from rich.console import Console
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.cli.terminal import markdown_stream
from metal_gen.cli.terminal.markdown_stream import MarkdownStream

pytest_plugins = ("fixtures_text",)

WIDTH, HEIGHT = 40, 8
DOCUMENT = """\
# Heading

Some **bold** text, `code`, a [link](http://x.y/z), <b>html</b> and vector<int>, wrapped over lines
of the source and of the screen.

1. one
1. two
   - nested
1. three, which is long enough to be wrapped at forty columns

- a
- b

* another list

> quoted
> text

| a | b |
|---|---|
| 1 | 2 |

```python
x = 1

y = 2
```

---

![picture](http://p) and [reference]

[reference]: http://r
"""
RENDERED = """\
                Heading

Some bold text, code, a link
(http://x.y/z), <b>html</b> and
vector<int>, wrapped over lines of the
source and of the screen.

 1 one
 2 two
    • nested
 3 three, which is long enough to be
   wrapped at forty columns

 • a
 • b

 • another list

▌ quoted text

 a  b
 ────
 1  2

 x = 1

 y = 2

----------------------------------------

!picture (http://p) and [reference]

[reference]: http://r
"""


class Screen:
    """A minimal terminal; `lines` are those that have scrolled off, and those of the screen."""

    def __init__(self):
        self.lines, self.row, self.column = [""], 0, 0

    def write(self, text):
        for part in re.findall(r"\x1b\[[\d;]*[A-Za-z]|.|\n", text):
            if part.endswith("m") and part.startswith("\x1b"):
                continue
            if part.startswith("\x1b"):
                self.obey(part[-1], part[2:-1])
            elif part == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif part == "\r":
                self.column = 0
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + part + line[self.column + 1 :]
                self.column += 1
                assert self.column <= WIDTH

    def obey(self, command, argument):
        if command == "A":
            self.row = max(len(self.lines) - HEIGHT, self.row - int(argument or 1), 0)
        else:
            assert (command, argument) == ("K", "2")
            self.lines[self.row] = ""

    def flush(self):
        pass

    @property
    def text(self):
        return "".join(f"{line.rstrip()}\n" for line in self.lines[: self.row])


@pytest.fixture
def stream(monkeypatch):
    """Return a stream that draws at every piece, and the screen that it draws on."""
    monkeypatch.setattr(markdown_stream, "DRAW_INTERVAL_S", 0.0)
    monkeypatch.setattr(markdown_stream, "REST_AFTER_DRAWING", 0.0)

    def stream(redraws=True):
        screen = Screen()
        console = Console(file=screen, force_terminal=True, width=WIDTH, height=HEIGHT, highlight=False)
        return MarkdownStream(console, redraws=redraws), screen

    return stream


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("redraws", [True, False])
def test_however_the_text_is_cut_the_screen_is_the_same_in_the_end(stream, redraws, turn):
    markdown, screen = stream(redraws)
    cuts = random.Random(turn)
    rest = DOCUMENT
    while rest:
        length = cuts.randint(1, 2 + 40 * turn)
        markdown.feed(rest[:length])
        rest = rest[length:]
    markdown.finish()
    assert screen.text == RENDERED


def test_a_block_is_drawn_while_it_grows_and_one_that_is_complete_is_left_alone(stream):
    markdown, screen = stream()
    markdown.feed("one\n\ntwo **b")
    assert screen.lines == ["one", "", "two **b"]
    markdown.feed("** and more than a marker")
    screen.lines[0] = "untouched"
    markdown.feed(" can be")
    assert screen.lines == ["untouched", "", "two b and more than a marker can be"]


def test_a_block_higher_than_the_screen_shows_its_end_and_is_written_once(stream):
    markdown, screen = stream()
    code = [f"line {number}" for number in range(30)]
    markdown.feed("before\n\n```\n")
    for line in code:
        markdown.feed(line + "\n")
    assert screen.lines[-1] == " line 29"
    assert len(screen.lines) <= HEIGHT + 2
    markdown.feed("```\n\nafter")
    markdown.finish()
    assert screen.text.split() == ["before", *" ".join(code).split(), "after"]


def test_a_list_without_end_fills_the_scrollback_once(stream):
    markdown, screen = stream()
    for number in range(1, 41):
        markdown.feed(f"{number}. item\n")
    markdown.finish()
    assert [line.split() for line in screen.text.splitlines()] == [
        [str(number), "item"] for number in range(1, 41)
    ]


@pytest.mark.parametrize(
    ("text", "shown"), [("&#13;a", "␍a"), ("`a` &#x202e;b", "a <U+202E>b"), ("&#27;[2J", "\ufffd[2J")]
)
def test_a_character_reference_cannot_control_the_terminal(stream, text, shown):
    markdown, screen = stream()
    markdown.feed(text)
    markdown.finish()
    assert screen.text == f"{shown}\n"


def test_without_redrawing_a_block_comes_when_it_is_complete(stream):
    markdown, screen = stream(redraws=False)
    markdown.feed("one\n\ntw")
    assert screen.text == ""
    markdown.feed("o\n\n")
    assert screen.text == "one\n"
    markdown.finish()
    assert screen.text == "one\n\ntwo\n"


def test_texts_follow_each_other(stream):
    markdown, screen = stream()
    for text in ("1. one\n2. two", "", "3. three"):
        markdown.feed(text)
        markdown.finish()
    assert screen.text == " 1 one\n 2 two\n 3 three\n"


def test_a_pipe_gets_the_text_itself_and_a_dumb_terminal_no_escapes(text_checkpoints, tmp_path):
    model = str(write_text_checkpoint(text_checkpoints / "list", says=b"- ab\n#"))
    arguments = ("generate", "-m", model, "-p", "hi", "--markdown", "-q")
    assert run_cli(*arguments, home=tmp_path).stdout == b"- ab\n#\n"
    dumb = run_in_terminal(*arguments, home=tmp_path, attached=("stdout",), TERM="dumb")
    assert dumb.screen.decode().splitlines()[0] == " • ab"
    assert b"\x1b" not in dumb.screen
