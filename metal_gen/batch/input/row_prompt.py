"""The prompt of a row: a text, or a conversation of messages."""

from metal_gen.errors import UsageError
from metal_gen.text.messages import Message, checked_messages, checked_text

PROMPT = "prompt"
MESSAGES = "messages"

Prompt = str | list[Message]


def take_prompt(given: dict[str, object]) -> Prompt:
    """Remove the prompt or the messages from a row's fields and return them.

    Raises:
        UsageError: There is neither, there are both, or the value is invalid.
    """
    if PROMPT in given and MESSAGES in given:
        raise UsageError("there are both a prompt and messages: give one of them")
    if PROMPT in given:
        return _text(PROMPT, given.pop(PROMPT))
    if MESSAGES in given:
        return checked_messages(MESSAGES, given.pop(MESSAGES))
    raise UsageError("there is neither a prompt nor messages")


def checked_prompt(name: str, value: object) -> Prompt:
    """Return a text or a list of messages from a field of any name.

    Raises:
        UsageError: The value is neither.
    """
    return checked_messages(name, value) if isinstance(value, list) else _text(name, value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        advice = f": a conversation goes under {MESSAGES}" if isinstance(value, list) else ""
        raise UsageError(f"{name} must be a text{advice}")
    if not value:
        place = "" if name == PROMPT else f": nothing in {name}"
        raise UsageError(f"the prompt is empty{place}")
    return checked_text(name, value)
