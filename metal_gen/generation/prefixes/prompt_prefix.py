"""A prompt prefix that several prompts share, from a file or a system message."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metal_gen.byte_sizes import format_bytes
from metal_gen.errors import UsageError
from metal_gen.files.json_file import NotJsonError, parse_json
from metal_gen.files.missing_file import how_to_read
from metal_gen.text.decoding import decode_text
from metal_gen.text.messages import SYSTEM, USER, Message, checked_messages

MOST_BYTES = 64 * 2**20
BOM = b"\xef\xbb\xbf"
STDIN = "-"


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
        """Return a prompt with the prefix in front of it, and only its system message before that.

        Raises:
            UsageError: Both have a system message.
        """
        if isinstance(prompt, str):
            if not self.messages:
                return self.text + prompt
            return [*self.messages, {"role": USER, "content": prompt}]
        count = next((place for place, each in enumerate(prompt) if each["role"] != SYSTEM), len(prompt))
        system, rest = [*prompt[:count]], [*prompt[count:]]
        if system:
            self.require_no_system()
        first = next((place for place, message in enumerate(rest) if message["role"] == USER), None)
        if self.text and first is None:
            rest.insert(0, {"role": USER, "content": self.text})
        elif self.text and first is not None:
            rest[first] = {**rest[first], "content": self.text + rest[first]["content"]}
        return [*system, *self.messages, *rest]

    def require_no_system(self) -> None:
        """Check that the prefix leaves the system message to the prompt.

        Raises:
            UsageError: It has one of its own.
        """
        if any(message["role"] == SYSTEM for message in self.messages):
            raise UsageError(
                "the system message is given twice: the prefix file has one too",
                "leave one of them out",
            )

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
    """Read a file with a JSON list of messages, or a text. A pipe, such as `<(command)`, is read to its end.

    Raises:
        UsageError: The file cannot be read, is not UTF-8, or has messages that cannot be used.
    """
    what = f"the prefix file {path}"
    content = _read(path).removeprefix(BOM)
    if content.lstrip()[:1] == b"[":
        with suppress(NotJsonError):  # A text may begin with a bracket.
            return PromptPrefix(messages=tuple(checked_messages(what, parse_json(content))))
    return PromptPrefix(text=decode_text(content, what))


def prefix_path(path: str) -> Path:
    """Return the path of a prefix file. `~/` is the home folder, which no shell puts into TOML."""
    try:
        return Path(path).expanduser() if path.startswith("~/") else Path(path)
    except RuntimeError:  # There is no home folder.
        return Path(path)


def _read(path: str) -> bytes:
    try:
        with prefix_path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        hint = "stdin is the prompt; <(command) reads what a command writes"
        raise UsageError(
            f"cannot read the prefix file: {error.strerror}: {path}",
            hint if path == STDIN else how_to_read(error, Path(path)),
        ) from None
    if len(content) > MOST_BYTES:
        raise UsageError(f"the prefix file has more than {format_bytes(MOST_BYTES)}: {path}")
    if not content.strip():
        raise UsageError(f"the prefix file is empty: {path}")
    return content
