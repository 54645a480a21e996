"""Validates the messages of a conversation from JSON."""

from metal_gen.config.checks import SURROGATES
from metal_gen.config.sources import nearest
from metal_gen.errors import UsageError

Message = dict[str, str]

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"
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
    checked = {"role": role, "content": ""}
    for name, value in message.items():
        if name in checked or value is None or value in ([], {}):
            continue
        if not isinstance(value, str):
            raise UsageError(f"{place} has {name[:40]!a}, which cannot be used")
        checked_text(f"the name of a field of {place}", name)
        checked[name] = checked_text(f"{name[:40]!a} in {place}", value)
    return checked | {"content": _content(place, content)}


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
