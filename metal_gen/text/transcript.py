"""A conversation as a file: a JSON object with its messages, as a row of a batch has them too."""

import json
from collections.abc import Sequence
from pathlib import Path

from metal_gen.errors import UsageError
from metal_gen.text.messages import Message, checked_messages

MESSAGES = "messages"


def format_transcript(messages: Sequence[Message]) -> str:
    """The text of a file with these messages."""
    return json.dumps({MESSAGES: list(messages)}, ensure_ascii=False, indent=2) + "\n"


def read_transcript(path: Path) -> list[Message]:
    """Read the messages of a file: an object that has them, whatever else it has, or a bare list.

    Raises:
        UsageError: It cannot be read, or a message in it cannot be used.
    """
    try:
        document = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(
            f"cannot read the transcript {path}: {error.strerror}",
            "`metal-gen chat --save FILE` writes one, and so does /save in a chat",
        ) from None
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is 0x{error.object[error.start]:02x}"
        raise UsageError(f"the transcript {path} is not UTF-8: {found}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the transcript {path} is not JSON: {error}") from None
    messages = document.get(MESSAGES) if isinstance(document, dict) else document
    try:
        return checked_messages(MESSAGES, messages)
    except UsageError as error:
        raise UsageError(f"the transcript {path} cannot be used: {error.message}", error.hint) from None
