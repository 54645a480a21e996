"""Calls of functions in a model's answer: the JSON of Qwen3, and the XML of Qwen3-Coder and Qwen3.5.

Source: the chat templates of Qwen3-8B and Qwen3-Coder-30B-A3B-Instruct, which show both forms.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metal_gen.files.json_file import NotJsonError, parse_json

OPEN, CLOSE = "<tool_call>", "</tool_call>"
# A value may hold the closing tag, so the next ones are tried too.
MOST_ENDS = 8
_FUNCTION = re.compile(r"\s*<function=([^>\s]+)>\n?(.*?)\n?</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>\s*", re.DOTALL)


@dataclass(frozen=True)
class ToolCall:
    """A call of a function.

    Attributes:
        name: Name of the function.
        arguments: Its arguments as JSON text, as OpenAI's API has them.
    """

    name: str
    arguments: str


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer, and the calls in it.

    Attributes:
        content: The answer without the calls that could be read.
        calls: The calls, in their order.
        unparsed: Number of calls that could not be read and stay in the content.
    """

    content: str
    calls: tuple[ToolCall, ...]
    unparsed: int


def parse_tool_calls(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> ParsedAnswer:
    """Find the calls in an answer. Nothing is lost: what cannot be read stays in the content.

    Args:
        text: The answer.
        tools: The functions. Their parameters say which values of the XML form are texts.
    """
    schemas = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in tools}
    calls: list[ToolCall] = []
    kept: list[str] = []
    place = unparsed = 0
    while (start := text.find(OPEN, place)) >= 0:
        call, end = _call_at(text, start, schemas)
        kept.append(text[place : start if call else end])
        if call is None:
            unparsed += 1
        else:
            calls.append(call)
        place = end
    content = "".join([*kept, text[place:]])
    return ParsedAnswer(content.strip() if calls else text, tuple(calls), unparsed)


def _call_at(text: str, start: int, schemas: Mapping[str, Any]) -> tuple[ToolCall | None, int]:
    """Read the call whose opening tag is at `start`. It ends at the first closing tag that makes it whole.

    Returns:
        The call, or None if it cannot be read; and where the text goes on.
    """
    begin = start + len(OPEN)
    following = text.find(OPEN, begin)
    stop = len(text) if following < 0 else following
    first = end = text.find(CLOSE, begin)
    if first < 0:  # An end token may have taken its place.
        return _json_call(text[begin:]) or _xml_call(text[begin:], schemas), len(text)
    for _ in range(MOST_ENDS):
        call = _json_call(text[begin:end]) or _xml_call(text[begin:end], schemas)
        if call is not None:
            return call, end + len(CLOSE)
        end = text.find(CLOSE, end + 1, stop)
        if end < 0:
            break
    return None, first + len(CLOSE)


def _json_call(text: str) -> ToolCall | None:
    try:
        value = parse_json(text.strip(), unique_names=True)
    except NotJsonError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = parse_json(arguments)
        except NotJsonError:
            return None
    return ToolCall(value["name"], _written(arguments)) if isinstance(arguments, dict) else None


def _xml_call(text: str, schemas: Mapping[str, Any]) -> ToolCall | None:
    function = _FUNCTION.fullmatch(text)
    if function is None:
        return None
    properties = schemas.get(function[1], {}).get("properties", {})
    arguments: dict[str, object] = {}
    place = 0
    while parameter := _PARAMETER.match(function[2], place):
        if parameter[1] in arguments:
            return None
        schema = properties.get(parameter[1]) if isinstance(properties, dict) else None
        arguments[parameter[1]] = _xml_value(parameter[2], schema)
        place = parameter.end()
    if function[2][place:].strip():
        return None
    return ToolCall(function[1], _written(arguments))


def _xml_value(text: str, schema: object) -> object:
    """Return a value: the text itself where it is one, or else what it is as JSON."""
    if isinstance(schema, dict) and schema.get("type") == "string":
        return text
    try:
        return parse_json(text.strip())
    except NotJsonError:
        return text


def _written(arguments: Mapping[str, object]) -> str:
    return json.dumps(arguments, ensure_ascii=False)
