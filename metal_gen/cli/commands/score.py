"""`metal-gen score`: how probable a text is to a model, or each text of a file."""

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer

from metal_gen.cli.batch.options import (
    ClusterOption,
    FsyncIntervalOption,
    OrderedOption,
    OverwriteOption,
    ResumeOption,
    RetryFailedOption,
    StrictOption,
    SummaryOption,
    batch_options,
    refuse_without_rows,
    row_flag,
)
from metal_gen.cli.batch.run import MOST_SLOTS, BatchRun
from metal_gen.cli.input.model_preparation import require_mlx_for
from metal_gen.cli.input.setting_options import (
    OUTPUT,
    QuietOption,
    VerboseOption,
    settings_in_force,
    with_settings,
)
from metal_gen.cli.output.output_file import STREAM, existing_file, require_different
from metal_gen.cli.scoring.options import (
    OF_PROMPTS,
    SETTINGS,
    RecordOption,
    RecordsOption,
    RowsOption,
    refuse_both_forms,
    refuse_without_effect,
)
from metal_gen.cli.scoring.run import RecordSink, ScoreTask, run_score
from metal_gen.cli.scoring.text_source import has_piped_input, text_pieces
from metal_gen.cli.terminal.console import Console
from metal_gen.errors import ExitCode, UsageError

# For its help.
EXAMPLES = (
    "metal-gen score notes.txt --model Qwen/Qwen3-0.6B --quantize 4 | jq .perplexity",
    "echo 'The fox lived in a wood.' | metal-gen score --per-token",
    "metal-gen score rows.jsonl --jsonl -o scores.jsonl --resume --model Qwen/Qwen3-0.6B",
)


@with_settings(*SETTINGS)
def score(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Score the text in this file, or with --jsonl its rows; - reads stdin",
            show_default="stdin",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="Score the text as the answer to this prompt"),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride",
            min=1,
            metavar="N",
            help="Move the window by this many tokens in a text that is longer than --max-seq-len",
            show_default="half of --max-seq-len",
        ),
    ] = None,
    per_token: Annotated[
        bool,
        typer.Option("--per-token", help="Add the log-probability of every token", rich_help_panel=OUTPUT),
    ] = False,
    output: RecordsOption = None,
    json: RecordOption = False,
    jsonl: RowsOption = False,
    resume: ResumeOption = False,
    retry_failed: RetryFailedOption = False,
    overwrite: OverwriteOption = False,
    strict: StrictOption = False,
    ordered: OrderedOption = False,
    fsync_interval: FsyncIntervalOption = None,
    keep_fields: Annotated[
        bool, row_flag("--keep-fields", "Copy fields that are not part of the text to the record")
    ] = False,
    summary: SummaryOption = None,
    cluster: ClusterOption = None,
    verbose: VerboseOption = 0,
    quiet: QuietOption = False,
    **settings_given: object,
) -> None:
    """Compute how probable a text is: log-probability, perplexity, bits per byte, as JSON.

    With --jsonl, a row is {"id": 1, "text": "..."}, {"id": 1, "prompt": "...", "text": "..."} or
    {"id": 1, "messages": [...]}, of which the last answer counts. Many rows are computed at once, and a run
    is resumed as one of `metal-gen batch`.
    """
    console = Console(quiet=quiet, verbosity=verbose)
    refuse_both_forms(context.params)
    source = file or (STREAM if has_piped_input() else None)
    if source is None:
        if console.stderr_is_terminal:
            with redirect_stdout(sys.stderr):
                print(context.get_help())
        raise UsageError("there is no text", "name a file, as in metal-gen score notes.txt, or pipe it in")
    if jsonl:
        if prompt is not None:
            raise UsageError("--prompt contradicts --jsonl", "a row has its own prompt")
        _score_rows(context, source, output or STREAM, console)
        return
    refuse_without_rows(context.params)
    _refuse_without_effect(context.params)
    require_different(
        text="/dev/stdin" if source == STREAM else source,
        model=existing_file(context.params["model"]),
        config=existing_file(context.params["config"]),
        output=output,
    )
    settings = settings_in_force(context.params)
    sink = RecordSink(output, console)
    try:
        with text_pieces(source, console) as pieces:
            record = run_score(settings, ScoreTask(pieces, prompt, stride, per_token), console)
        sink.write(record)
    finally:
        sink.close()


def _refuse_without_effect(given: Mapping[str, Any]) -> None:
    """Refuse options that do nothing for one text."""
    refuse_without_effect(given, ("batch_size",), "one text", "give rows with --jsonl")
    if given["prompt"] is None:
        where = "a text without a prompt, which is scored as it is"
        refuse_without_effect(given, OF_PROMPTS, where, "give --prompt")
    else:
        where = "a text after a prompt, which is never cut into windows"
        refuse_without_effect(given, ("stride",), where, "leave --prompt out")


def _score_rows(context: typer.Context, source: str, output: str, console: Console) -> None:
    given = context.params
    options = batch_options(given, source, output, console)
    settings = settings_in_force(given)
    # What is imported next imports MLX.
    require_mlx_for(settings, slots=MOST_SLOTS)

    from metal_gen.batch.scoring.work import ScoreRows

    work = ScoreRows(given["stride"], given["per_token"], given["keep_fields"])
    if BatchRun(settings, options, work, console).write():
        raise typer.Exit(ExitCode.FAILED_ROWS)
