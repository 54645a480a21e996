"""A conversation as a file: a JSON object with its messages, as a row of a batch has them too."""

import json
from collections.abc import Sequence
from pathlib import Path

from metal_gen.errors import UsageError
from metal_gen.files.bounded_file import read_bounded
from metal_gen.files.json_file import NotJsonError, parse_json
from metal_gen.text.decoding import decode_text
from metal_gen.text.messages import Message, checked_messages

MESSAGES = "messages"
# Far more than any cache holds.
MOST_BYTES = 64 << 20


def format_transcript(messages: Sequence[Message]) -> str:
    """The text of a file with these messages."""
    return json.dumps({MESSAGES: list(messages)}, ensure_ascii=False, indent=2) + "\n"


def read_transcript(path: Path) -> list[Message]:
    """Read the messages of a file: an object that has them, whatever else it has, or a bare list.

    Raises:
        UsageError: It cannot be read, or a message in it cannot be used.
    """
    try:
        text = decode_text(read_bounded(path, MOST_BYTES), f"the transcript {path}")
        document = parse_json(text, half_characters=True)  # which the messages' own check names
    except OSError as error:
        raise UsageError(
            f"cannot read the transcript {path}: {error.strerror}",
            "`metal-gen chat --save FILE` writes one, and so does /save in a chat",
        ) from None
    except NotJsonError as error:
        raise UsageError(
            f"the transcript {path} {error}",
            'a transcript is {"messages": [{"role": ..., "content": ...}, ...]}',
        ) from None
    messages = document.get(MESSAGES) if isinstance(document, dict) else document
    try:
        return checked_messages(MESSAGES, messages)
    except UsageError as error:
        raise UsageError(f"the transcript {path} cannot be used: {error.message}", error.hint) from None
