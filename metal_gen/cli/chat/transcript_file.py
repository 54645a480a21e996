"""Saves a conversation to a file readable only by its owner; replaces nothing but an older transcript."""

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
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
    """A conversation that is kept in a file, because a chat can end at any moment.

    Args:
        conversation: The conversation.
        path: Path of the file, checked by `require_place`; None to save nothing.
        console: Shows the messages.

    Attributes:
        path: Path of the file that keeps the present conversation; None if nothing is saved.
    """

    def __init__(self, conversation: "Conversation", path: Path | None, console: Console) -> None:
        self._conversation = conversation
        self._given = path
        self.path = path
        self._console = console
        self._warned = False
        self._expect_as_is()

    def save_turn(self) -> None:
        """Save the conversation so far; a failure is reported once, and the chat continues."""
        try:
            self._save()
        except MetalGenError as error:
            if not self._warned:
                self._console.warn(f"this turn is not saved yet: {error.message}", error.hint)
            self._warned = True

    def save_at_end(self) -> None:
        """Save the conversation and report it; raises as `save_transcript` does."""
        if self._save():
            self._console.note(f"saved to {self.path}")

    def begin_other(self, loaded: Path | None = None) -> None:
        """Keep the file of the conversation so far, and save the one that takes its place to another file.

        Args:
            loaded: File of the new conversation; it is continued in that file if `--save` names the same.
        """
        before, given = self.path, self._given
        if before is None or given is None or _state(before) is None:
            return
        continued = [path for path in (before, given) if loaded is not None and _are_same(path, loaded)]
        self.path = continued[0] if continued else _free_name(given)
        self._expect_as_is()
        if self.path != before:
            self._console.note(f"the conversation so far stays in {before}; --save goes on with {self.path}")

    def expect(self, written: Path) -> None:
        """Note that the conversation was written to this file: the next turn may replace that."""
        if self.path is not None and _are_same(self.path, written):
            self._expect_as_is()

    def _expect_as_is(self) -> None:
        self._expected = None if self.path is None else _state(self.path)

    def _save(self) -> bool:
        messages = self._conversation.messages
        if self.path is None or all(message["role"] == "system" for message in messages):
            return False
        if _state(self.path) not in (None, self._expected):
            changed, self.path = self.path, _free_name(self._given or self.path)
            self._console.warn(f"another program has changed {changed}: --save goes on with {self.path}")
        save_transcript(self.path, messages, "--save")
        self._expect_as_is()
        return True


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever a file is written; None if it is missing or empty."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if status.st_size else None


def _are_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _free_name(path: Path) -> Path:
    """Return a path in the same folder that no file has: talk-2.json for talk.json."""
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(name for name in names if not os.path.lexists(name))


def require_place(path: Path, option: str) -> None:
    """Check that a transcript can be written to a path.

    Raises:
        UsageError: The path cannot be written, or has a file that is not an older transcript.
    """
    # A FIFO would block until it has a reader. A path that cannot be examined is refused below.
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
            f"{option} {path} would replace a file that is not a transcript",
            "name another file, or remove it",
        ) from None


def require_no_other(path: Path, loaded: Path | None) -> None:
    """Check that a new chat replaces no conversation but the one that it continues.

    Args:
        path: Path of the file that each turn will replace, checked by `require_place`.
        loaded: Path of the conversation that the chat continues.

    Raises:
        UsageError: The file holds a conversation that was not loaded.
    """
    if not path.exists() or not path.stat().st_size or (loaded is not None and path.samefile(loaded)):
        return
    continues = f"--load {path} --save {path} continues it" if loaded is None else "remove it"
    raise UsageError(
        f"--save {path} would replace the conversation in it", f"{continues}, or name another file"
    )


def save_transcript(path: Path, messages: Sequence[Message], option: str) -> None:
    """Write the messages, whole or not at all.

    Raises:
        UsageError: As for `require_place`, or there are no messages.
    """
    if not messages:
        raise UsageError("there is nothing to save: nothing has been said")
    require_place(path, option)
    OutputFile(path, option, private=True).write(format_transcript(messages))
