"""Tests that thinking is the block at the beginning of a text, in any pieces of its tags."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.thinking import THINK_CLOSE, THINK_OPEN, ThinkingSplitter

CHAT = Prompt([1], is_chat=True)
OPENED = Prompt([1], is_chat=True, opens_thinking=True)
BLOCK = re.compile(r"[ \t\n\r\v\f]*<think>\n*(.*?)(?:</think>\n*|\Z)(.*)", re.DOTALL)
TEXTS = st.lists(
    st.sampled_from([THINK_OPEN, THINK_CLOSE, "<", "</th", "think>", "\n", " ", "\xa0", "a", "é<", "ink>"])
).map("".join)


def split(prompt, pieces):
    """Return the thinking and the answer."""
    splitter = ThinkingSplitter(prompt)
    parts = [*map(splitter.feed, pieces), splitter.finish()]
    return "".join(thinking for thinking, _ in parts), "".join(answer for _, answer in parts)


def reference(text):
    """Return the same from a search of the whole text."""
    block = BLOCK.match(text)
    return block.groups() if block else ("", text)


def letters(text):
    return list(text)


@given(TEXTS, st.data())
@example("<think>\nhm\n</think>\n\nyes", None)
@example("\n<think>a</think><think>b</think>", None)
def test_any_pieces_equal_a_search_of_the_whole_text(text, data):
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=8)) if data else range(len(text))
    pieces = [text[begin:end] for begin, end in pairwise([0, *sorted(places), len(text)])]
    assert split(CHAT, pieces) == reference(text)
    assert split(OPENED, pieces) == reference(THINK_OPEN + text)


@pytest.mark.parametrize("prompt", [CHAT, OPENED])
def test_a_tag_within_an_answer_is_a_part_of_it(prompt):
    before = "hm</think>" if prompt.opens_thinking else ""
    answer = "Use<think>now</think>, and <think> again"
    assert split(prompt, letters(before + answer)) == ("hm" if before else "", answer)


def test_without_a_chat_template_nothing_is_thinking():
    text = "<think>a</think>b"
    assert split(Prompt([1]), letters(text)) == ("", text)


def test_a_text_that_ends_while_thinking_has_no_answer():
    assert split(CHAT, ["<think>\n", "abc</thi"]) == ("abc</thi", "")


@pytest.mark.parametrize(
    ("prefill", "begun", "text", "rest"),
    [
        ("Sure", ("", "Sure"), "<think>a", ("", "<think>a")),
        ("<think>\nLet me", ("Let me", ""), " see</think>\n\nYes", (" see", "Yes")),
        ("<think>\n\n</think>\n\n", ("", ""), "Yes", ("", "Yes")),
        ("<think>a</think>b", ("a", "b"), "</think>", ("", "</think>")),
        ("\n", ("", "\n"), "<think>a</think>b", ("a", "b")),
        ("<thi", ("", "<thi"), "nk>", ("", "nk>")),
        ("", ("", ""), "<think>a", ("a", "")),
    ],
)
def test_a_prefill_is_the_beginning_of_the_text(prefill, begun, text, rest):
    prompt = Prompt([1], is_chat=True, prefill=prefill)
    assert ThinkingSplitter(prompt).prefilled == begun
    assert split(prompt, letters(text)) == rest
