"""One run of `metal-gen generate`: loads the model, streams the texts, and reports on them."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from metal_gen.cli.input.model_preparation import Preparation, note_bundled_model
from metal_gen.cli.output.json_indent import JsonIndenter
from metal_gen.cli.output.output_file import CollectedText, OutputFile, StreamedText
from metal_gen.cli.output.piece_output import PieceOutput, TextOutput, TextSink, show_piece
from metal_gen.cli.output.report import repeated_by, report_end, report_start, warn_of_prefixes
from metal_gen.cli.signals import StoppedError
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress import LOADING, PhaseBar, ProgressBar
from metal_gen.errors import ExitCode, IncompleteError, NoAnswerError

if TYPE_CHECKING:
    from metal_gen.generation.loading import PreparedModel, TextModel
    from metal_gen.generation.pieces import Piece
    from metal_gen.text.encoded_prompt import Prompt


READING = "reading the prompt"
Failure = NoAnswerError | IncompleteError


@dataclass(frozen=True)
class TextForm:
    """The format of the texts.

    Attributes:
        is_json: One JSON object.
        is_jsonl: One JSON object per token, and one at the end.
        ends_line: Add a newline to a text that does not end with one.
    """

    is_json: bool
    is_jsonl: bool
    ends_line: bool

    @property
    def is_text(self) -> bool:
        """Whether the plain text is written."""
        return not self.is_json and not self.is_jsonl


class GenerateRun:
    """One run over one prompt.

    Args:
        preparation: Preparation of the model.
        form: Format of the texts.
        file: Receives the texts; None for standard output.
        console: The console of the run.
        keep: Receives the model, so that it is not freed just before the process ends.
    """

    def __init__(
        self,
        preparation: Preparation,
        form: TextForm,
        file: OutputFile | None,
        console: Console,
        keep: "Callable[[TextModel], None]",
    ) -> None:
        self._preparation = preparation
        self._form = form
        self._file = file
        self._console = console
        self._keep = keep
        self._sink: TextSink = console
        if file is not None:
            self._sink = StreamedText(file) if file.is_stream else CollectedText()

    def write(self, text: str) -> None:
        """Generate texts from a prompt and write them.

        Raises:
            NoAnswerError: A text ended before its answer began.
            IncompleteError: A text ended before it was all that its constraint asks for.
        """
        model, prompt = self._load(text)
        self._keep(model)
        try:
            failures = self._stream(model, prompt, self._make_output(model))
        except StoppedError as stopped:
            self._keep_unfinished(stopped)
            raise
        has_answer = len(failures) < model.settings.samples
        file = self._file
        if file is not None and isinstance(self._sink, CollectedText) and has_answer:
            file.write(self._sink.text)
            self._console.detail(f"the text is in {file.path}")
        if failures:
            note = "" if file is None or has_answer else f"; {self._kept_apart(file, failures[0])}"
            raise type(failures[0])(failures[0].message + note, failures[0].hint)

    def _kept_apart(self, file: OutputFile, failure: Failure) -> str:
        """Keep an incomplete document in a file next to the output, and say where."""
        note = f"nothing is written to {file.path}"
        if isinstance(failure, NoAnswerError) or not isinstance(self._sink, CollectedText):
            return note
        part = file.write_beside(self._sink.text)
        return note if part is None else f"{note}, and the text so far is in {part}"

    def _load(self, text: str) -> "tuple[TextModel, Prompt]":
        """Load weights and tokenizer in parallel, after the checks that need neither."""
        prepared, console = self._preparation.prepared, self._console

        from metal_gen.generation.prompt import encode_as_set

        settings = prepared.settings
        _say_notices(prepared, console)
        with ProgressBar(console, LOADING):
            loading = prepared.in_background(prepared.read_weights)
            if settings.is_constrained:
                prepared.checkpoint.token_table.build()
            prompt = encode_as_set(prepared.checkpoint, text, settings, most_tokens=prepared.plan.most_tokens)
            prepared = prepared.for_prompt(len(prompt.ids))
            report_start(prepared, console)
            if (count := prepared.plan.cache.batch_size) > 1:
                console.detail(f"generate uses 1 of the {count} sequences that the cache holds")
            for notice in prompt.notices:
                console.warn(notice)
            return prepared.with_cache(loading.result()), prompt

    def _make_output(self, model: "TextModel") -> PieceOutput:
        settings, sink, console = model.settings, self._sink, self._console
        if not self._form.is_text:
            from metal_gen.cli.output.json_output import JsonOutput

            return JsonOutput(sink, model, streams=self._form.is_jsonl, shows=sink is console)
        # With log-probabilities, records come between the pieces, which leaves nothing to render.
        if settings.markdown and settings.logprobs is None and sink is console:
            console.use_markdown()
        indent = settings.schema_indent if settings.schema else None
        return TextOutput(
            sink,
            console,
            ends_samples=settings.samples > 1,
            ends_line=self._form.ends_line and settings.samples == 1,
            hides_thinking=settings.hide_thinking,
            tells_logprobs=True,
            indenter=None if indent is None else JsonIndenter(indent),
        )

    def _stream(self, model: "TextModel", prompt: "Prompt", output: PieceOutput) -> list[Failure]:
        """Stream the pieces of the texts to the output; return an error per text that fell short."""
        from metal_gen.generation.pieces import join
        from metal_gen.generation.text_generation import stream_generate

        console = self._console
        failures: list[Failure] = []
        said: list[Piece] = []
        try:
            with output, PhaseBar(console) as bar:
                bar.begin(READING, len(prompt.ids))
                on_prefill = partial(bar.update, READING)
                with closing(stream_generate(model, prompt, on_prefill=on_prefill)) as pieces:
                    for piece in pieces:
                        if said and piece.sample != said[-1].sample:
                            said.clear()
                        said.append(piece)
                        show_piece(piece, output, bar)
                        if piece.finish is not None:
                            error = join(said).shortcoming
                            report_end(piece, model, console, is_failure=error is not None)
                            if error is not None:
                                failures.append(error)
        except StoppedError:
            # The line with the seed lets the user generate the text again.
            if said:
                console.note(repeated_by(said[-1], model))
            raise
        finally:
            console.end_text()
        warn_of_prefixes(model, console)
        return failures

    def _keep_unfinished(self, stopped: StoppedError) -> None:
        """Keep the text after Ctrl-C; other signals (shutdown, time limit) leave no files behind."""
        if self._file is None or not isinstance(self._sink, CollectedText):
            return
        is_wanted = stopped.exit_code is ExitCode.INTERRUPTED
        part = self._file.write_beside(self._sink.text) if is_wanted else None
        if part is None:
            self._console.note(f"nothing is written to {self._file.path}")
        else:
            self._console.note(f"the text so far is in {part}")


def _say_notices(prepared: "PreparedModel", console: Console) -> None:
    from metal_gen.generation.strategy_settings import is_greedy

    settings = prepared.settings
    note_bundled_model(settings, console)
    for notice in prepared.notices:
        console.warn(notice)
    if settings.samples > 1 and is_greedy(settings):
        console.warn(
            f"all {settings.samples} texts will be equal: the most probable token is always taken",
            "--temperature 0.8 makes them differ",
        )
