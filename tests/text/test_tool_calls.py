"""Calls of functions in an answer: read in both forms, and never lost."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metal_gen.errors import UsageError
from metal_gen.text.messages import checked_messages, with_parsed_arguments
from metal_gen.text.tool_calls import ToolCall, parse_tool_calls

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "box": {"type": "array"},
                },
            },
        },
    }
]


def calls_in(text):
    parsed = parse_tool_calls(text, TOOLS)
    return parsed.content, [(call.name, json.loads(call.arguments)) for call in parsed.calls], parsed.unparsed


JSON_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 3}}\n</tool_call>'
XML_CALL = (
    "<tool_call>\n<function=weather>\n<parameter=city>\n12\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
    "<parameter=box>\n[1, 2]\n</parameter>\n<parameter=other>\nfree text\n</parameter>\n"
    "</function>\n</tool_call>"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No call.\n", ("No call.\n", [], 0)),
        (JSON_CALL, ("", [("weather", {"city": "Rome", "days": 3})], 0)),
        (
            XML_CALL,
            ("", [("weather", {"city": "12", "days": 3, "box": [1, 2], "other": "free text"})], 0),
        ),
        (
            f"Let me see.\n{JSON_CALL}\n{JSON_CALL}",
            ("Let me see.", [("weather", {"city": "Rome", "days": 3})] * 2, 0),
        ),
        # An end tag that an end token has taken the place of.
        (JSON_CALL.removesuffix("</tool_call>"), ("", [("weather", {"city": "Rome", "days": 3})], 0)),
        ('<tool_call>{"name": "now"}</tool_call>', ("", [("now", {})], 0)),
        ("<tool_call><function=now></function></tool_call>", ("", [("now", {})], 0)),
        (
            '<tool_call>{"name": "a", "arguments": "{\\"b\\": 1}"}</tool_call>',
            ("", [("a", {"b": 1})], 0),
        ),
        (
            "<tool_call>\n<function=a>\n<parameter=x>\n1 <\n  2\n</parameter>\n</function></tool_call>",
            ("", [("a", {"x": "1 <\n  2"})], 0),
        ),
        # A value that holds an end tag; the call after it is another one.
        (
            f'<tool_call>{{"name": "a", "arguments": {{"x": "</tool_call>"}}}}</tool_call>{JSON_CALL}',
            ("", [("a", {"x": "</tool_call>"}), ("weather", {"city": "Rome", "days": 3})], 0),
        ),
        (
            "<tool_call><function=a><parameter=x>\n</tool_call>\n</parameter></function></tool_call>, then",
            (", then", [("a", {"x": "</tool_call>"})], 0),
        ),
    ],
    ids=range(11),
)
def test_calls_are_read(text, expected):
    assert calls_in(text) == expected


@pytest.mark.parametrize(
    "block",
    [
        "<tool_call>weather</tool_call>",
        '<tool_call>{"name": "weather", "arguments": {"city": "Ro</tool_call>',
        '<tool_call>{"name": 5}</tool_call>',
        '<tool_call>{"name": "a", "arguments": [1]}</tool_call>',
        "<tool_call><function=a><parameter=b>1</function></tool_call>",
        "<tool_call><function=a>rest</function></tool_call>",
        "<tool_call>",
        "<tool_call><function=a><parameter=b>1</tool_call>",
    ],
    ids=range(8),
)
def test_what_cannot_be_read_stays_in_the_text_and_is_counted(block):
    assert calls_in(f"See: {block}") == (f"See: {block}", [], 1)
    content, calls, unparsed = calls_in(f"{JSON_CALL}{block}")
    assert (content, len(calls), unparsed) == (block, 1, 1)


def test_a_call_that_cannot_be_read_leaves_the_next_one():
    block = "<tool_call><function=a><parameter=b>1</tool_call>"
    call = "<tool_call><function=now></function></tool_call>"
    assert calls_in(block + call) == (block, [("now", {})], 1)


@given(st.text(alphabet='<>/tool_cafunr={}":, \n\\x', max_size=80))
def test_nothing_is_lost_whatever_the_answer(text):
    parsed = parse_tool_calls(text, TOOLS)
    if not parsed.calls:
        assert parsed.content == text


def test_a_call_can_be_sent_back_in_a_conversation():
    call = {"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": '{"days": 3}'}}
    messages = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "content": "sunny"},
    ]
    checked = checked_messages("messages", messages)
    assert checked[1] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert checked[2]["tool_call_id"] == "call_0"
    assert with_parsed_arguments(call)["function"]["arguments"] == {"days": 3}
    assert (
        with_parsed_arguments({"function": {"name": "a", "arguments": "{"}})["function"]["arguments"] == "{"
    )


@pytest.mark.parametrize("call", [5, {}, {"function": {}}, {"function": {"name": "a", "arguments": 5}}])
def test_a_call_that_is_none_is_refused(call):
    with pytest.raises(UsageError, match="call 1 of tool_calls in message 1"):
        checked_messages("messages", [{"role": "assistant", "content": "", "tool_calls": [call]}])


def test_arguments_keep_their_order_and_their_characters():
    call = parse_tool_calls('<tool_call>{"name": "a", "arguments": {"z": "é", "b": 1}}</tool_call>').calls
    assert call == (ToolCall("a", '{"z": "é", "b": 1}'),)
