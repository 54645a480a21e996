"""`metal-gen generate`: one prompt in, one text out."""

import sys
from collections.abc import Mapping
from contextlib import closing, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metal_gen.cli.input.escapes import unescape_options
from metal_gen.cli.input.model_preparation import Preparation
from metal_gen.cli.input.prompt_source import read_prompt
from metal_gen.cli.input.setting_options import (
    OUTPUT,
    SAMPLING_SETTINGS,
    STOPPING_SETTINGS,
    QuietOption,
    VerboseOption,
    settings_in_force,
    with_settings,
)
from metal_gen.cli.output.output_file import (
    CollectedText,
    OutputFile,
    StreamedText,
    is_stdout,
    require_different,
)
from metal_gen.cli.output.piece_output import PieceOutput, TextOutput, TextSink, show_piece
from metal_gen.cli.output.report import report_end, report_start
from metal_gen.cli.signals import StoppedError
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress import PhaseBar
from metal_gen.errors import ExitCode, NoAnswerError, UsageError

if TYPE_CHECKING:
    from metal_gen.generation.loading import TextModel
    from metal_gen.generation.pieces import Piece
    from metal_gen.text.encoded_prompt import Prompt

# For its help.
EXAMPLES = (
    'metal-gen generate --prompt "Tell me a story about a fox."',
    'metal-gen generate --model Qwen/Qwen3-0.6B --prompt "Why is the sky blue?" --top-p 0.9 --seed 1',
    'cat notes.txt | metal-gen generate --model Qwen/Qwen3-0.6B --prompt "Summarise:" -o summary.txt',
    'metal-gen generate --prompt "Tell me a story about an owl." --json | jq -r .text',
)
CONTRADICTIONS = (
    ("json", "jsonl"),
    *(("json", "markdown"), ("json", "hide_thinking")),
    *(("jsonl", "markdown"), ("jsonl", "hide_thinking")),
    ("logprobs", "markdown"),
)


@with_settings(
    *("model", "adapter", "system", "raw", "thinking", "compile", "blas"),
    *("markdown", "hide_thinking"),
    *SAMPLING_SETTINGS,
    *("samples", "logprobs"),
    *STOPPING_SETTINGS,
    *("max_seq_len", "cache_dtype", "model_dtype", "quantize", "rope_scaling"),
    *("chunk_size", "memory_limit_bytes"),
)
def generate(
    context: typer.Context,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="Answer this prompt, after piped text; - reads stdin",
            show_default="stdin",
        ),
    ] = None,
    prompt_file: Annotated[
        str | None,
        typer.Option(
            "--prompt-file",
            metavar="FILE",
            help="Read text that comes before --prompt from this file; - reads stdin",
        ),
    ] = None,
    escape: Annotated[
        bool, typer.Option("--escape", help=r"Read \n in --prompt, --system and --stop as a new line")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the text to this file when it is complete",
            show_default="stdout",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end", rich_help_panel=OUTPUT)
    ] = False,
    jsonl: Annotated[
        bool,
        typer.Option(
            "--jsonl", help="Print one JSON object per token, and one at the end", rich_help_panel=OUTPUT
        ),
    ] = False,
    verbose: VerboseOption = 0,
    quiet: QuietOption = False,
    **settings_given: object,
) -> None:
    """Answer a prompt: stream the text to stdout, and everything else to stderr."""
    console = Console(quiet=quiet, verbosity=verbose)
    given = unescape_options(context.params) if escape else context.params
    _refuse_contradictions(given)
    require_different(prompt=prompt_file, output=output)
    file = None
    if is_stdout(output):
        console.require_stdout()
    else:
        file = OutputFile(Path(str(output)))
    try:
        settings = settings_in_force(given)
        form = "json" if json else "jsonl" if jsonl else "text"
        if settings.logprobs is not None and form == "text" and file is None:
            _refuse_mixture(console)
        preparation = Preparation(settings, console)
        text = read_prompt(given["prompt"] or (), prompt_file, console, preparation.most_prompt_bytes)
        if text is None:
            with redirect_stdout(sys.stderr):
                print(context.get_help())
            console.error("there is no prompt", "give one with --prompt TEXT, or pipe it in")
            raise typer.Exit(ExitCode.USAGE)
        _run(context, preparation, text, form, file, console)
    finally:
        if file is not None:
            file.discard()


def _refuse_contradictions(given: Mapping[str, Any]) -> None:
    for one, other in CONTRADICTIONS:
        if given[one] and given[other]:
            flags = [f"--{name.replace('_', '-')}" for name in (one, other)]
            raise UsageError(f"{flags[0]} contradicts {flags[1]}", "leave one of them out")


def _refuse_mixture(console: Console) -> None:
    """A line of JSON after every word of the text is of no use to anybody."""
    if console.stdout_is_terminal and console.stderr_is_terminal:
        raise UsageError(
            "the text and its log-probabilities would be mixed on the terminal",
            "--json or --jsonl has both; or keep them apart with 2>logprobs.jsonl, or -o FILE",
        )


def _run(
    context: typer.Context,
    preparation: Preparation,
    text: str,
    form: str,
    file: OutputFile | None,
    console: Console,
) -> None:
    """Check what needs neither weights nor tokenizer, then read both side by side, then generate."""
    from metal_gen.background import Background

    prepared = preparation.prepared
    settings = prepared.settings

    from metal_gen.generation.prompt import encode_prompt
    from metal_gen.generation.strategy_settings import is_greedy

    for notice in prepared.notices:
        console.warn(notice)
    if settings.samples > 1 and is_greedy(settings):
        console.warn(
            f"all {settings.samples} texts will be equal: the most probable token is always taken",
            "--temperature 0.8 draws them",
        )
    loading = Background(prepared.read_weights)
    prompt = encode_prompt(
        prepared.checkpoint,
        text,
        system=settings.system,
        raw=settings.raw,
        thinking=settings.thinking,
        most_tokens=prepared.plan.most_tokens,
    )
    prepared = prepared.for_prompt(len(prompt.ids))
    report_start(prepared, console)
    if (count := prepared.plan.cache.batch_size) > 1:
        console.detail(f"generate uses 1 of the {count} sequences that the cache holds")
    for notice in prompt.notices:
        console.warn(notice)
    sink = _sink(file, console)
    model = prepared.with_cache(loading.result())
    # The process is about to end: nothing of the model need be freed before.
    context.find_root().obj = model
    try:
        missing = _stream(model, prompt, _make_output(form, sink, model, console), console)
    except StoppedError as stopped:
        if file is not None and isinstance(sink, CollectedText):
            _keep_unfinished(file, sink.text, stopped, console)
        raise
    has_answer = len(missing) < settings.samples
    if file is not None and isinstance(sink, CollectedText) and has_answer:
        file.write(sink.text)
        console.detail(f"the text is in {file.path}")
    if missing:
        note = "" if file is None or has_answer else f"; nothing is written to {file.path}"
        raise NoAnswerError(missing[0].message + note, missing[0].hint)


def _sink(file: OutputFile | None, console: Console) -> TextSink:
    if file is None:
        return console
    return StreamedText(file) if file.is_stream else CollectedText()


def _keep_unfinished(file: OutputFile, text: str, stopped: StoppedError, console: Console) -> None:
    """Keep what a person has stopped; a shutdown or a time limit leaves a folder as it was."""
    part = file.write_beside(text) if stopped.exit_code is ExitCode.INTERRUPTED else None
    if part is not None:
        console.note(f"the text so far is in {part}")
    else:
        console.note(f"nothing is written to {file.path}")


def _make_output(form: str, sink: TextSink, model: "TextModel", console: Console) -> PieceOutput:
    settings = model.settings
    if form != "text":
        from metal_gen.cli.output.json_output import JsonOutput

        return JsonOutput(sink, model, streams=form == "jsonl", shows=sink is console)
    # Records of tokens come between the pieces, which leaves nothing to render.
    if settings.markdown and settings.logprobs is None and sink is console:
        console.use_markdown()
    return TextOutput(
        sink,
        console,
        ends_samples=settings.samples > 1,
        hides_thinking=settings.hide_thinking,
        tells_logprobs=True,
    )


def _stream(
    model: "TextModel", prompt: "Prompt", output: PieceOutput, console: Console
) -> list[NoAnswerError]:
    """Hand on the pieces of the texts as they come; returns what the texts without an answer are missing."""
    from metal_gen.generation.pieces import join
    from metal_gen.generation.text_generation import stream_generate

    missing: list[NoAnswerError] = []
    said: list[Piece] = []
    try:
        with output, PhaseBar(console) as bar:
            on_prefill = partial(bar.update, "reading the prompt")
            with closing(stream_generate(model, prompt, on_prefill=on_prefill)) as pieces:
                for piece in pieces:
                    if said and piece.sample != said[-1].sample:
                        said.clear()
                    said.append(piece)
                    show_piece(piece, output, bar)
                    if piece.finish is not None:
                        report_end(piece, model, console)
                        if (error := join(said).missing_answer) is not None:
                            missing.append(error)
    except StoppedError:
        # What has been written can be drawn again.
        if said:
            console.note(f"seed {said[-1].statistics.seed}")
        raise
    finally:
        console.end_text()
    return missing
