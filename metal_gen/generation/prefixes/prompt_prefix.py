"""A prompt prefix that several prompts share, from a file or a system message."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metal_gen.errors import UsageError
from metal_gen.files.bounded_file import read_bounded
from metal_gen.files.json_file import NotJsonError, parse_json
from metal_gen.files.missing_file import how_to_read
from metal_gen.text.messages import SYSTEM, USER, Message, checked_messages

MOST_BYTES = 64 * 2**20
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class PromptPrefix:
    """Text and messages before a prompt.

    Attributes:
        text: Text before the first user message.
        messages: Messages before it.
    """

    text: str = ""
    messages: tuple[Message, ...] = ()

    def before(self, prompt: str | Sequence[Message]) -> str | list[Message]:
        """Return a prompt with the prefix in front of it."""
        if isinstance(prompt, str) and not self.messages:
            return self.text + prompt
        rest = [{"role": USER, "content": prompt}] if isinstance(prompt, str) else [*prompt]
        first = next((place for place, message in enumerate(rest) if message.get("role") == USER), None)
        if self.text and first is not None:
            rest[first] = {**rest[first], "content": self.text + rest[first]["content"]}
        return [*self.messages, *rest]

    def before_another(self, prompt: str | Sequence[Message]) -> str | list[Message]:
        """Return a prompt that shares only the prefix and the system messages with the result of `before`."""
        if isinstance(prompt, str):
            return self.before(_unlike(prompt))
        system = [message for message in prompt if message.get("role") == SYSTEM]
        contents = [message["content"] for message in prompt if message.get("role") == USER]
        return self.before([*system, {"role": USER, "content": _unlike("".join(contents[:1]))}])


def _unlike(text: str) -> str:
    """Return a text with another beginning."""
    return "1" if text.startswith("0") else "0"


def read_prefix(path: str) -> PromptPrefix:
    """Read a file with a JSON list of messages, or a text.

    Raises:
        UsageError: The file cannot be read, is not UTF-8, or has messages that cannot be used.
    """
    try:
        content = read_bounded(Path(path), MOST_BYTES).removeprefix(BOM)
    except OSError as error:
        hint = how_to_read(error, Path(path))
        raise UsageError(f"cannot read the prefix file: {error.strerror}: {path}", hint) from None
    if content.lstrip()[:1] == b"[":
        try:
            return PromptPrefix(
                messages=tuple(checked_messages(f"the prefix file {path}", parse_json(content)))
            )
        except NotJsonError:
            pass  # A text may begin with a bracket.
    try:
        return PromptPrefix(text=content.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"the prefix file is not UTF-8: byte {error.start} of {path}") from None
