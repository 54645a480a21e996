"""Saves a conversation to a file, in place of nothing but an older one."""

from collections.abc import Sequence
from pathlib import Path

from metal_gen.cli.output.output_file import OutputFile
from metal_gen.errors import UsageError
from metal_gen.text.messages import Message
from metal_gen.text.transcript import format_transcript, read_transcript


def require_place(path: Path, option: str) -> None:
    """See that a transcript can be written there.

    Raises:
        UsageError: It cannot, or something is there that is not an older transcript.
    """
    OutputFile(path, option).discard()
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        read_transcript(path)
    except UsageError:
        raise UsageError(
            f"{option} {path} would replace a file that is no transcript", "name another file, or remove it"
        ) from None


def save_transcript(path: Path, messages: Sequence[Message], option: str) -> None:
    """Write the messages, whole or not at all.

    Raises:
        UsageError: As of `require_place`, or there are none.
    """
    if not messages:
        raise UsageError("there is nothing to save: nothing has been said")
    require_place(path, option)
    OutputFile(path, option).write(format_transcript(messages))
