"""What a message may have, from a row, a transcript or a program."""

import pytest

from metal_gen.errors import UsageError
from metal_gen.text.messages import checked_messages

HALF = "\ud800"


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
def test_half_of_a_character_is_refused_wherever_it_is(message):
    with pytest.raises(UsageError) as caught:
        checked_messages("messages", [message])
    caught.value.message.encode()


def test_fields_of_any_name_stay_and_those_that_are_null_do_not():
    said = {"role": "assistant", "content": "a", "reasoning": "b", "näme": "c"}
    assert checked_messages("messages", [{**said, "tool_calls": None}]) == [said]
