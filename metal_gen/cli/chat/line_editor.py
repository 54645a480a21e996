"""A line editor for the chat, based on prompt_toolkit: keys, history, completion. Draws on stderr."""

import os
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output
from prompt_toolkit.shortcuts import CompleteStyle

from metal_gen.cli.chat.multiline import BACKSLASH, CONTINUATION, PROMPT, is_unfinished, without_quotes
from metal_gen.cli.chat.paste_marks import mark_pastes

OWNER_ONLY = 0o600
OWNER_ONLY_FOLDER = 0o700


class LineEditor:
    """Reads messages from a terminal, with editing.

    Args:
        history: File with earlier input, from `open_history`; None keeps the history for this chat only.
        words: The words that may follow each command, for the Tab key.
    """

    def __init__(self, history: Path | None, words: Mapping[str, Collection[str]]) -> None:
        kept: History = InMemoryHistory() if history is None else _SoftHistory(str(history))
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            key_bindings=_keys(),
            history=kept,
            completer=_CommandCompleter(words),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            enable_suspend=True,
            output=create_output(sys.stderr),
        )

    def read(self) -> str:
        """See `MessageSource`."""
        try:
            return without_quotes(self._session.prompt())
        finally:
            # prompt_toolkit turns paste marks off after each line; pastes during an answer need them too.
            mark_pastes(on=True)


def open_history(environ: Mapping[str, str]) -> Path | None:
    """Find or create `$XDG_STATE_HOME/metal-gen/chat_history` (`~/.local/state` by default).

    Returns:
        None without a home folder.

    Raises:
        OSError: The file cannot be read and written.
    """
    if base := environ.get("XDG_STATE_HOME"):
        folder = Path(base)
    elif home := environ.get("HOME"):
        folder = Path(home) / ".local" / "state"
    else:
        return None
    path = folder / "metal-gen" / "chat_history"
    path.parent.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, OWNER_ONLY))
    return path


class _CommandCompleter(Completer):
    """Completes a command, or the word after it."""

    def __init__(self, words: Mapping[str, Collection[str]]) -> None:
        self._words = words

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        command, space, typed = document.text_before_cursor.partition(" ")
        if not space:
            typed = command
        for word in self._words.get(command, ()) if space else self._words:
            if typed and word.startswith(typed):
                yield Completion(word, start_position=-len(typed))


class _SoftHistory(FileHistory):
    """A history that ignores errors, so that a full disk or a missing file does not end the chat."""

    def load_history_strings(self) -> Iterable[str]:
        try:
            return super().load_history_strings()
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith(BACKSLASH):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif is_unfinished(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _line_break(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
