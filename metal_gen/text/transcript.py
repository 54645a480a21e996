"""Reads and writes a conversation as a file: a JSON object with messages, like a row of a batch."""

import json
from collections.abc import Sequence
from pathlib import Path

from metal_gen.errors import UsageError
from metal_gen.files.bounded_file import read_bounded
from metal_gen.files.json_file import NotJsonError, parse_json
from metal_gen.files.missing_file import how_to_read
from metal_gen.text.decoding import decode_text
from metal_gen.text.messages import Message, checked_messages

MESSAGES = "messages"
# Much more than any cache holds.
MOST_BYTES = 64 << 20


def format_transcript(messages: Sequence[Message]) -> str:
    """Return the text of a file with these messages."""
    return json.dumps({MESSAGES: list(messages)}, ensure_ascii=False, indent=2) + "\n"


def read_transcript(path: Path) -> list[Message]:
    """Read the messages of a file: an object with messages and possibly other fields, or a bare list.

    Raises:
        UsageError: The file cannot be read, or a message in it cannot be used.
    """
    try:
        text = decode_text(read_bounded(path, MOST_BYTES), f"the transcript {path}")
        document = parse_json(text, half_characters=True)  # the check of the messages names them
    except OSError as error:
        raise UsageError(
            f"cannot read the transcript {path}: {error.strerror}",
            f"{how_to_read(error, path)}; `metal-gen chat --save FILE` writes one",
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
