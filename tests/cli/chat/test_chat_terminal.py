"""Tests a chat in a real terminal: keys are pressed, and the screen is read."""

import json
import re

import pytest
from tiny_text_checkpoint import write_text_checkpoint
from tmux_terminal import Terminal, needs_tmux

pytest_plugins = ("fixtures_text",)
pytestmark = [pytest.mark.tmux, needs_tmux]


def shown(screen):
    """Return the screen from the first prompt on, without speeds and dtype."""
    begin = next((place for place, line in enumerate(screen) if line.startswith(">")), len(screen))
    lines = [re.sub(r" in b?float\d+$", "", line.rstrip()) for line in screen[begin:]]
    return [re.sub(r"[\d.]+ tok/s", "N tok/s", line) for line in lines]


def numbers(tokens, cache, seed):
    use = f"cache {cache} of 20000; seed {seed}, float32"
    return f"metal-gen: prompt {tokens}, answer 10 tokens; length (max_tokens); N tok/s; {use}"


def test_three_turns_an_undo_and_an_interrupt(text_checkpoints, tmp_path):
    folder = write_text_checkpoint(
        text_checkpoints / "escaping", says=b"ab\x1bc\ndef", forever=True, max_position_embeddings=20_000
    )
    said, answer = "ab\x1bc\ndefab", ["ab\u241bc", "defab"]
    options = ("--max-seq-len", "20000", "-n", "10", "--seed", "1", "--save", "talk.json")
    expected = []
    with Terminal("chat", "--model", str(folder), *options, home=tmp_path, columns=120, rows=40) as terminal:

        def see(*lines):
            expected.extend(lines)
            terminal.wait_until(lambda screen: shown(screen) == [*expected, ">"])

        see()
        terminal.type("one", "Enter")
        see("> one", *answer, numbers("21", 30, 1))
        terminal.type("two", "M-Enter")
        terminal.type("lines", "Enter")
        see("> two", "  lines", *answer, numbers("61 (40 new)", 70, 2))
        terminal.type("/undo", "Enter")
        see("> /undo", "metal-gen: taken back: 'two lines'; the conversation has 44 tokens, of 20000")
        terminal.resize(120, 40)
        terminal.type("", "Up", "Up", "Enter")
        see("> two", "  lines", *answer, numbers("61 (1 new)", 70, 3))

        terminal.type("/set max_tokens 15000", "Enter")
        terminal.type("go", "Enter")
        terminal.wait_until(lambda screen: screen[-3:-1] == ["defab\u241bc"] * 2)
        terminal.type("", "C-c")
        stopped = (
            "metal-gen: stopped; the answer so far is kept: /undo removes the turn, /retry answers again"
        )
        terminal.wait_until(lambda screen: (screen[-3:-2], screen[-1].rstrip()) == ([stopped], ">"))
        assert not any("^C" in line for line in terminal.screen)
        terminal.type("half a line", "C-c")
        ends = ["> half a line", "metal-gen: Ctrl-D or /exit ends the chat", ">"]
        terminal.wait_until(lambda screen: [line.rstrip() for line in screen[-3:]] == ends)
        terminal.type("", "C-d")
        assert terminal.wait_for_end() == 0
    messages = json.loads((tmp_path / "talk.json").read_text())["messages"]
    contents = [message["content"] for message in messages]
    assert contents[:5] == ["one", said, "two\nlines", said, "go"]
    assert contents[5].startswith(said + said[2:])
    assert len(contents[5]) < 15_000


@pytest.mark.release
def test_lines_pasted_during_an_answer_are_one_message(text_checkpoints, tmp_path):
    folder = write_text_checkpoint(
        text_checkpoints / "patient", says=b"abcdefgh\n", forever=True, max_position_embeddings=20_000
    )
    options = ("--max-seq-len", "20000", "-n", "700", "--save", "talk.json")
    with Terminal("chat", "--model", str(folder), *options, home=tmp_path, rows=12) as terminal:

        def ends_with(*lines):
            terminal.wait_until(lambda screen: [line.strip() for line in screen[-len(lines) :]] == [*lines])

        ends_with(">")
        terminal.type("go", "Enter")
        terminal.wait_until(lambda screen: screen[-3:-1] == ["abcdefgh"] * 2)
        terminal.paste("one\n/exit\nthree")
        ends_with("> one", "/exit", "three")
        terminal.type("", "Enter")
        terminal.wait_until(lambda screen: screen[-3:-1] == ["abcdefgh"] * 2)
        ends_with(">")
        terminal.type("", "C-d")
        assert terminal.wait_for_end() == 0
    messages = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [message["content"] for message in messages[::2]] == ["go", "one\n/exit\nthree"]
