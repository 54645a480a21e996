"""Saves a conversation to a file that its owner alone can read, in place of nothing but an older one."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from metal_gen.cli.output.output_file import OutputFile
from metal_gen.cli.terminal.console import Console
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.files.descriptors import is_stream
from metal_gen.text.messages import Message
from metal_gen.text.transcript import format_transcript, read_transcript

if TYPE_CHECKING:
    from metal_gen.generation.conversation import Conversation


class SavedConversation:
    """A conversation that is kept in a file, for a chat that can end at any moment.

    Args:
        conversation: What is kept.
        path: Of the file, which `require_place` has seen; None to keep nothing.
        console: Gets what there is to say.
    """

    def __init__(self, conversation: "Conversation", path: Path | None, console: Console) -> None:
        self._conversation = conversation
        self._path = path
        self._console = console
        self._warned = False

    def save_turn(self) -> None:
        """Save what has been said so far; a failure is reported once, and the chat continues."""
        try:
            self._save()
        except MetalGenError as error:
            if not self._warned:
                self._console.warn(f"this turn is not saved yet: {error.message}", error.hint)
            self._warned = True

    def save_at_end(self) -> None:
        """Save the conversation and say so; errors as of `save_transcript`."""
        if self._save():
            self._console.note(f"saved to {self._path}")

    def _save(self) -> bool:
        messages = self._conversation.messages
        if self._path is None or not messages:
            return False
        save_transcript(self._path, messages, "--save")
        return True


def require_place(path: Path, option: str) -> None:
    """See that a transcript can be written there.

    Raises:
        UsageError: It cannot, or something is there that is not an older transcript.
    """
    # A FIFO would wait for its reader; what cannot be looked at is refused below.
    with suppress(OSError):
        if is_stream(path):
            raise UsageError(f"{option} {path} is not a file", "name a file: each turn replaces it")
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
    OutputFile(path, option, private=True).write(format_transcript(messages))
