"""Tests the fields of messages, from a row, a transcript or a program."""

import pytest

from metal_gen.errors import UsageError
from metal_gen.text.messages import checked_messages

HALF = "\ud800"
OTHERS = ("system", "user", "tool")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "a", HALF: "x"},
        {"role": "user", "content": "a", "name": HALF},
        {"role": "user", "content": HALF},
        {"role": "user", "content": [{"type": "text", "text": HALF}]},
        {"role": HALF, "content": "a"},
    ],
)
def test_unpaired_surrogates_are_refused_everywhere(message):
    with pytest.raises(UsageError) as caught:
        checked_messages("messages", [message])
    caught.value.message.encode()


def test_fields_of_any_name_stay_unless_null():
    said = {"role": "assistant", "content": "a", "reasoning": "b", "näme": "c"}
    assert checked_messages("messages", [{**said, "tool_calls": None}]) == [said]


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_empty_fields_of_a_server_s_answer_are_ignored(nothing):
    said = {"role": "assistant", "content": "a"}
    empty = dict.fromkeys(("tool_calls", "annotations", "refusal", "audio"), nothing)
    assert checked_messages("messages", [{**said, **empty}]) == [said]


@pytest.mark.parametrize("said", [[{"id": "1"}], {"a": 1}, 0, False])
def test_a_field_that_is_not_text_is_refused(said):
    with pytest.raises(UsageError, match="tool_calls"):
        checked_messages("messages", [{"role": "assistant", "content": None, "tool_calls": said}])


def test_an_answer_without_a_content_is_empty_and_nothing_else_may_be_without():
    thought = {"role": "assistant", "content": None, "reasoning": "b"}
    assert checked_messages("messages", [thought]) == [{**thought, "content": ""}]
    for message in ({"role": "assistant", "text": "a"}, *({"role": r, "content": None} for r in OTHERS)):
        with pytest.raises(UsageError, match="content that is a text"):
            checked_messages("messages", [message])
