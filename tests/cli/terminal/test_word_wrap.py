"""Tests breaking lines between words, whatever the pieces of the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from metal_gen.cli.terminal.word_wrap import WordWrap, wrap_words

TEXTS = st.text(alphabet="abc  \t\n`|漢é", max_size=80)
PROSE = st.text(alphabet="abcde  \n", max_size=200).map(lambda text: "x" + text.replace("\n", "\nx"))


def feed(pieces, columns):
    wrap = WordWrap(lambda: columns)
    return "".join(map(wrap.feed, pieces)) + wrap.end_line()


@given(TEXTS, st.integers(1, 30), st.data())
def test_pieces_make_no_difference(text, columns, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert feed(pieces, columns) == wrap_words(text, columns)


@given(TEXTS, st.integers(1, 30))
def test_only_white_space_changes(text, columns):
    assert wrap_words(text, columns).split() == text.split()


@given(TEXTS)
def test_without_a_width_nothing_changes(text):
    assert wrap_words(text, 0) == text


@given(PROSE, st.integers(1, 30))
def test_a_line_is_broken_exactly_where_the_next_word_has_no_room(text, columns):
    for given_line in text.split("\n"):
        # Short words with one space between them; other cases have their own tests below.
        words = " ".join(word for word in given_line.split() if len(word) <= columns)
        lines = wrap_words(words, columns).split("\n")
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            assert len(line) <= columns
            if following:
                assert len(f"{line} {following.split()[0]}") > columns


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("one two three", "one two\nthree", id="words"),
        pytest.param("one  two   three", "one  two\nthree", id="spaces-at-the-break-go"),
        pytest.param("a longestword b", "a longestword b", id="too-long-a-word-goes-on"),
        pytest.param("    x = one + two", "    x = one + two", id="code"),
        pytest.param("\tx = one + two", "\tx = one + two", id="code-by-tab"),
        pytest.param("```\na b c d e f\n```\na b c d e f", "```\na b c d e f\n```\na b c d\ne f", id="fence"),
        pytest.param("| one | two | 3 |", "| one | two | 3 |", id="table"),
        pytest.param("  - one two", "  - one\ntwo", id="list"),
        pytest.param("漢字漢字漢字 ab", "漢字漢字漢字 ab", id="wide-go-on"),
        pytest.param("漢字漢 ab", "漢字漢\nab", id="wide-count-twice"),
        pytest.param("one two ", "one two ", id="room-for-the-space"),
        pytest.param("one two    \nx", "one two \nx", id="no-room-for-spaces"),
    ],
)
def test_what_a_screen_of_eight_columns_shows(text, shown):
    assert wrap_words(text, 8) == shown


def test_a_word_is_shown_as_soon_as_it_is_complete_or_cannot_fit():
    wrap = WordWrap(lambda: 8)
    pieces = ["on", "e", " t", "w", "o", "\n", "overlong", "er", "漢"]
    assert [wrap.feed(piece) for piece in pieces] == ["", "", "one", "", "", " two\n", "", "overlonge", "r漢"]
    assert cell_len("漢") == 2
