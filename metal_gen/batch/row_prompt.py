"""What a row asks: a text, or a conversation of messages."""

from metal_gen.config.checks import SURROGATES
from metal_gen.config.sources import nearest
from metal_gen.errors import UsageError

PROMPT = "prompt"
MESSAGES = "messages"
ROLES = ["system", "user", "assistant", "tool"]

Prompt = str | list[dict[str, str]]


def take_prompt(given: dict[str, object]) -> Prompt:
    """Take the prompt or the messages out of what a row gives.

    Raises:
        UsageError: There is neither, there are both, or what there is cannot be used.
    """
    if PROMPT in given and MESSAGES in given:
        raise UsageError("there are both a prompt and messages: give one of them")
    if PROMPT in given:
        return _text(PROMPT, given.pop(PROMPT))
    if MESSAGES in given:
        return _messages(MESSAGES, given.pop(MESSAGES))
    raise UsageError("there is neither a prompt nor messages")


def checked_prompt(name: str, value: object) -> Prompt:
    """Accept a text or a list of messages from a field of any name.

    Raises:
        UsageError: It is neither.
    """
    return _messages(name, value) if isinstance(value, list) else _text(name, value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        advice = f": a conversation goes under {MESSAGES}" if isinstance(value, list) else ""
        raise UsageError(f"{name} must be a text{advice}")
    if not value:
        raise UsageError(f"{name} is empty")
    return _whole(name, value)


def _messages(name: str, value: object) -> list[dict[str, str]]:
    if not isinstance(value, list):
        raise UsageError(f"{name} must be a list of messages, each with a role and a content")
    if not value:
        raise UsageError(f"{name} is empty")
    return [_message(f"message {place} of {name}", message) for place, message in enumerate(value)]


def _message(place: str, message: object) -> dict[str, str]:
    if not isinstance(message, dict):
        raise UsageError(f"{place} must be an object with a role and a content")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise UsageError(f"{place} must have a role that is a text")
    if role not in ROLES:
        raise UsageError(f"{place} has the role {role[:40]!a}: {nearest(role[:40], ROLES)}")
    checked = {"role": role, "content": _content(place, content)}
    for name, value in message.items():
        if name in checked or value is None:
            continue
        if not isinstance(value, str):
            raise UsageError(f"{place} has {name[:40]!a}, which cannot be used")
        checked[name] = _whole(f"{name[:40]!a} in {place}", value)
    return checked


def _content(place: str, content: object) -> str:
    if isinstance(content, list):
        content = "".join(_part(place, part) for part in content)
    if not isinstance(content, str):
        raise UsageError(f"{place} must have a content that is a text")
    return _whole(f"the content of {place}", content)


def _part(place: str, part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise UsageError(f"{place} has a part that is not text, and only text can be used")


def _whole(place: str, text: str) -> str:
    if found := SURROGATES.search(text):
        raise UsageError(f"{place} has half of a character, {found[0]!a}, at character {found.start() + 1}")
    return text
