"""Writes the pieces of a text: streamed as they arrive, or collected for a file."""

from typing import TYPE_CHECKING, Protocol, Self

from metal_gen.cli.output.json_indent import JsonIndenter
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress import PhaseBar
from metal_gen.generation.record import piece_record

if TYPE_CHECKING:
    from metal_gen.generation.pieces import Piece


class TextSink(Protocol):
    """A destination of text: a `Console`, or a `CollectedText`."""

    def write_text(self, text: str) -> None:
        """Write a piece."""
        ...

    def end_sample(self) -> None:
        """Separate one of several texts from the next."""
        ...


class PieceOutput(Protocol):
    """Receives the pieces of one or several texts; output at the end is written when the context exits."""

    def waits_for(self, piece: "Piece") -> str | None:
        """Return the text of a progress bar while this piece is not visible; None if it is."""
        ...

    def add(self, piece: "Piece") -> None:
        """Add the next piece."""
        ...

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """End, normally or because of an exception."""
        ...


class TextOutput:
    """Writes the answer to a sink, and thinking and log-probabilities to stderr.

    Args:
        sink: Receives the answer.
        console: The console of the run.
        ends_samples: Separate the texts.
        ends_line: End a text with a newline, added if necessary; a terminal always gets one.
        hides_thinking: Do not show the model's thinking.
        tells_logprobs: Write a record for each token with log-probabilities; thinking is then shown only in
            the records.
        indenter: Indents the answer, which is JSON; None leaves it as it is.
    """

    def __init__(
        self,
        sink: TextSink,
        console: Console,
        *,
        ends_samples: bool,
        ends_line: bool,
        hides_thinking: bool,
        tells_logprobs: bool,
        indenter: JsonIndenter | None = None,
    ) -> None:
        self._sink = sink
        self._console = console
        self._ends_samples = ends_samples
        self._ends_line = ends_line and not (sink is console and console.stdout_is_terminal)
        self._last_text = ""
        self._has_thought = False
        self._hides_thinking = hides_thinking
        self._tells_logprobs = tells_logprobs
        self._indenter = indenter
        console.use_word_wrap()

    def waits_for(self, piece: "Piece") -> str | None:
        """Return the text of a progress bar while this piece is not visible; None if it is."""
        if self._has_record(piece):
            return None
        if piece.is_thinking:
            return "thinking" if self._hides_thinking else None
        return None if self._sink is self._console else "writing"

    def add(self, piece: "Piece") -> None:
        """Add the next piece."""
        self._has_thought = self._has_thought or piece.is_thinking or bool(piece.thinking)
        if piece.thinking and not self._hides_thinking and not self._has_record(piece):
            self._console.write_thinking(piece.thinking)
        if not piece.is_thinking:
            self._add_answer(piece.text)
        if self._has_record(piece):
            self._console.write_record(piece_record(piece))
        if piece.finish is not None:
            self._console.end_thinking(is_done=False)
            self._end_line(needs_text=self._has_thought)
            self._has_thought = False
            if self._ends_samples:
                self._sink.end_sample()

    def _add_answer(self, text: str) -> None:
        if not text:
            return
        self._console.end_thinking(is_done=True)
        text = text if self._indenter is None else self._indenter.feed(text)
        self._last_text = text or self._last_text
        self._sink.write_text(text)

    def _end_line(self, *, needs_text: bool) -> None:
        """End the last line of a text; an empty text gets a line too, unless its answer is missing."""
        last, self._last_text = self._last_text, ""
        if self._ends_line and not last.endswith("\n") and (last or not needs_text):
            self._sink.write_text("\n")

    def _has_record(self, piece: "Piece") -> bool:
        return self._tells_logprobs and piece.logprobs is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """End the line of a text that was stopped."""
        if kind is None or not issubclass(kind, Exception):
            self._end_line(needs_text=True)


def show_piece(piece: "Piece", output: PieceOutput, bar: PhaseBar) -> None:
    """Pass a piece to the output; show a bar while the text is not visible."""
    waits_for = output.waits_for(piece)
    if waits_for is None or piece.finish is not None:
        bar.close()
    else:
        bar.update(waits_for, piece.statistics.completion_tokens, None)
    output.add(piece)
