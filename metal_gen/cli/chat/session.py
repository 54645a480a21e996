"""A chat in progress: passes messages to the model, and shows the answers as they arrive."""

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING

from metal_gen.cli.chat.interrupts import Interrupts
from metal_gen.cli.chat.report import choices, report_answer
from metal_gen.cli.output.piece_output import TextOutput, show_piece
from metal_gen.cli.output.report import warn_of_prefixes
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress import PhaseBar
from metal_gen.errors import NoAnswerError

if TYPE_CHECKING:
    from metal_gen.cli.chat.transcript_file import SavedConversation
    from metal_gen.generation.conversation import Conversation
    from metal_gen.generation.pieces import Piece

READING = "reading the message"

Answer = Callable[[Callable[[int, int], None]], "Generator[Piece, None, None]"]


class _StoppedError(Exception):
    """The answer was stopped while its prompt was being read."""


class ChatSession:
    """A conversation with its console and its signal handling.

    Args:
        conversation: The conversation with the model.
        console: Shows the answers.
        interrupts: Tells when an answer is to be stopped.
        remedies: Returns what can be done about a full cache.
        saved: Saves the conversation after each answer, however it ended; None to save nothing.
        end_answer: Called with each answer, before anything is said of it.

    Attributes:
        last: The last piece received.
        saved: As given.
    """

    def __init__(
        self,
        conversation: "Conversation",
        console: Console,
        interrupts: Interrupts,
        remedies: "Callable[[Conversation], str]" = choices,
        saved: "SavedConversation | None" = None,
        end_answer: Callable[[str], None] = lambda answer: None,
    ) -> None:
        self.conversation = conversation
        self.console = console
        self.last: Piece | None = None
        self._interrupts = interrupts
        self._remedies = remedies
        self.saved = saved
        self._end_answer = end_answer
        self._warned: set[str] = set()

    def say(self, text: str) -> str:
        """Send a message and show the answer; raises as `Conversation.ask` does.

        Returns:
            The answer.
        """
        return self._show(lambda on_prefill: self.conversation.ask(text, on_prefill=on_prefill))

    def retry(self) -> str:
        """Generate the answer to the last message again; otherwise like `say`."""
        return self._show(lambda on_prefill: self.conversation.retry(on_prefill=on_prefill))

    def _show(self, answer: Answer) -> str:
        console, interrupts = self.console, self._interrupts
        interrupts.begin_answer()
        before = self.conversation.messages
        output = TextOutput(
            console,
            console,
            ends_samples=False,
            ends_line=False,
            hides_thinking=self.conversation.model.settings.hide_thinking,
            tells_logprobs=False,
        )
        pieces_shown: list[Piece] = []
        try:
            with output, PhaseBar(console) as bar:
                bar.begin(READING)

                def on_prefill(done: int, total: int) -> None:
                    if interrupts.requested:
                        raise _StoppedError
                    bar.update(READING, done, total)

                with closing(answer(on_prefill)) as pieces:
                    self._warn_once()
                    for piece in pieces:
                        self.last = piece
                        show_piece(piece, output, bar)
                        pieces_shown.append(piece)
                        if interrupts.requested:
                            break
        except _StoppedError:
            pass
        finally:
            console.end_text()
        said = "".join(piece.text for piece in pieces_shown if not piece.is_thinking)
        self._end_answer(said)
        was_taken = self.conversation.messages is before
        report_answer(None if was_taken else self.last, self.conversation, self._remedies, console)
        self._warn_of_shortcoming(pieces_shown)
        warn_of_prefixes(self.conversation.model, console)
        if self.saved is not None:
            self.saved.save_turn()
        return said

    def _warn_of_shortcoming(self, pieces: "list[Piece]") -> None:
        """Warn about an answer that is missing or not complete, in a text that ended by itself."""
        from metal_gen.generation.pieces import join

        if not pieces or pieces[-1].finish is None or (failure := join(pieces).shortcoming) is None:
            return
        hint = "/set max_tokens N gives it more tokens"
        if isinstance(failure, NoAnswerError):
            hint += ", /set thinking false leaves the thinking out"
        self.console.warn(failure.message, hint)

    def _warn_once(self) -> None:
        for notice in self.conversation.notices:
            if notice not in self._warned:
                self.console.warn(notice)
                self._warned.add(notice)
