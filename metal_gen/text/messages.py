"""Validates the messages of a conversation from JSON."""

from typing import Any

from metal_gen.config.checks import SURROGATES
from metal_gen.config.sources import nearest
from metal_gen.errors import UsageError
from metal_gen.files.json_file import NotJsonError, parse_json

Message = dict[str, Any]

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"
TOOL_CALLS = "tool_calls"
ROLES = [SYSTEM, USER, ASSISTANT, TOOL]


def checked_messages(name: str, value: object) -> list[Message]:
    """Validate a list of messages, each with a role, a content and possibly other text fields.

    A field that is null, an empty list or an empty object is ignored. Answers of servers have such fields,
    as in `"tool_calls": []`, and come back in a conversation.

    Args:
        name: Name of the list in error messages.
        value: Value from JSON.

    Raises:
        UsageError: It is not such a list.
    """
    if not isinstance(value, list):
        raise UsageError(f"{name} must be a list of messages, each with a role and a content")
    if not value:
        raise UsageError(f"the list {name} is empty")
    return [_message(f"message {number} of {name}", message) for number, message in enumerate(value, 1)]


def _message(place: str, message: object) -> Message:
    if not isinstance(message, dict):
        raise UsageError(f"{place} must be an object with a role and a content")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise UsageError(f"{place} must have a role that is a text")
    if role not in ROLES:
        raise UsageError(f"{place} has the role {role[:40]!a}: {nearest(role[:40], ROLES)}")
    if content is None and "content" in message and role == ASSISTANT:
        content = ""  # An answer that ended while thinking has no content.
    if content is None and role == ASSISTANT and message.get(TOOL_CALLS):
        content = ""
    checked: Message = {"role": role, "content": ""}
    for name, value in message.items():
        if name in checked or value is None or value in ([], {}):
            continue
        if name == TOOL_CALLS and role == ASSISTANT and isinstance(value, list):
            calls = enumerate(value, 1)
            checked[name] = [
                _call(f"call {number} of {TOOL_CALLS} in {place}", call) for number, call in calls
            ]
            continue
        if not isinstance(value, str):
            raise UsageError(f"{place} has {name[:40]!a}, which cannot be used")
        checked_text(f"the name of a field of {place}", name)
        checked[name] = checked_text(f"{name[:40]!a} in {place}", value)
    return checked | {"content": _content(place, content)}


def _call(place: str, call: object) -> dict[str, Any]:
    """Validate a call of a function, as OpenAI's API has it."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UsageError(f"{place} must have a function with a name")
    if not isinstance(function.get("arguments", {}), dict | str):
        raise UsageError(f"{place} must have arguments: an object, or its JSON")
    return dict(call)  # type: ignore[call-overload, no-any-return]


def with_parsed_arguments(call: Any) -> Any:
    """Return a call with its arguments as an object, if they are the JSON of one."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = parse_json(function["arguments"])
    except NotJsonError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _content(place: str, content: object) -> str:
    if isinstance(content, list):
        content = "".join(_part(place, part) for part in content)
    if not isinstance(content, str):
        raise UsageError(f"{place} must have a content that is a text")
    return checked_text(f"the content of {place}", content)


def _part(place: str, part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise UsageError(f"{place} has a part that is not text, and only text can be used")


def checked_text(place: str, text: str) -> str:
    """Accept a text without unpaired surrogates.

    Raises:
        UsageError: The text has one.
    """
    if found := SURROGATES.search(text):
        raise UsageError(
            f"{place} contains an unpaired surrogate, {found[0]!a}, at character {found.start() + 1}"
        )
    return text
