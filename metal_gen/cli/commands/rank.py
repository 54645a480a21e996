"""`metal-gen rank`: which of several answers is the most probable, which document fits a query best."""

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
from metal_gen.cli.completion import completion_from
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
from metal_gen.cli.scoring.run import RecordSink, run_rank, slots_for
from metal_gen.cli.scoring.text_source import has_piped_input, text_pieces
from metal_gen.cli.terminal.console import Console
from metal_gen.config.settings import Settings
from metal_gen.errors import ExitCode, UsageError

# Documents of a single ranking are in memory together: about 64 MiB.
MOST_CHARACTERS = 1 << 26

# For its help.
EXAMPLES = (
    'metal-gen rank --prompt "Tell me a story." --choice "A fox went out." --choice "Qua qua."',
    "metal-gen rank --model Qwen/Qwen3-Reranker-0.6B --query foxes --documents-file notes.txt --top 3",
    "metal-gen rank rows.jsonl --jsonl -o ranked.jsonl --resume --model Qwen/Qwen3-Reranker-0.6B",
)


@with_settings(*SETTINGS)
def rank(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Read rows from this file, with --jsonl; - reads stdin"),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="Rank choices after this prompt")
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option("--choice", metavar="TEXT", help="Rank this text after the prompt; can be repeated"),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="sum|mean",
            help="Rank choices by the sum or mean log-probability of their tokens",
            show_default="sum",
            autocompletion=completion_from(("sum", "mean")),
        ),
    ] = None,
    query: Annotated[
        str | None, typer.Option("--query", metavar="TEXT", help="Rank documents for this query")
    ] = None,
    document: Annotated[
        list[str] | None,
        typer.Option("--document", metavar="TEXT", help="Rank this document; can be repeated"),
    ] = None,
    documents_file: Annotated[
        str | None,
        typer.Option("--documents-file", metavar="FILE", help="Rank each line of this file; - reads stdin"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="reranker|likelihood",
            help="Ask a reranker whether a document fits, or compute how probable the query is after it",
            show_default="reranker if the model's name has the word, else likelihood",
            autocompletion=completion_from(("reranker", "likelihood")),
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            "--instruction",
            metavar="TEXT",
            help="Tell the model what makes a document fit; rows of choices do not use it",
            show_default="the usual one of each method",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            min=1,
            metavar="N",
            help="Write the N best only",
            show_default="all",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
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
        bool, row_flag("--keep-fields", "Copy fields that are not part of the task to the record")
    ] = False,
    summary: SummaryOption = None,
    cluster: ClusterOption = None,
    verbose: VerboseOption = 0,
    quiet: QuietOption = False,
    **settings_given: object,
) -> None:
    """Rank choices by how probable they are after a prompt, or documents by how well they fit a query.

    Writes JSON, the best first. With --jsonl, a row is {"id": 1, "prompt": "...", "choices": [...]} or
    {"id": 1, "query": "...", "documents": [...]}, and a run is resumed as one of `metal-gen batch`.
    """
    console = Console(quiet=quiet, verbosity=verbose)
    refuse_both_forms(context.params)
    if jsonl:
        _rank_rows(context.params, console)
    else:
        _rank_one(context.params, console)


def _rank_rows(given: dict[str, Any], console: Console) -> None:
    for name in ("prompt", "choice", "query", "document", "documents_file"):
        if given[name]:
            raise UsageError(f"--{name.replace('_', '-')} contradicts --jsonl", "a row has its own")
    source = given["file"] or (STREAM if has_piped_input() else None)
    if source is None:
        raise UsageError("there are no rows", "name a file, or pipe them in")
    options = batch_options(given, source, given["output"] or STREAM, console)
    settings = _settings(given)
    # What is imported next imports MLX.
    require_mlx_for(settings, slots=MOST_SLOTS)

    from metal_gen.batch.scoring.work import RankRows
    from metal_gen.scoring.ranking import RankOptions

    rank_options = RankOptions.named(given["by"], given["method"], given["instruction"], given["top"])
    work = RankRows(rank_options, given["keep_fields"])
    if BatchRun(settings, options, work, console).write():
        raise typer.Exit(ExitCode.FAILED_ROWS)


def _rank_one(given: dict[str, Any], console: Console) -> None:
    refuse_without_rows(given)
    if given["file"] is not None:
        raise UsageError(
            f"a file of rows needs --jsonl: {given['file']}",
            'as in `metal-gen rank --prompt "..." --choice A --choice B`; --documents-file reads documents',
        )
    documents = None
    if given["document"] or given["documents_file"] is not None:
        documents = [*(given["document"] or ())]
    require_different(
        documents=given["documents_file"],
        model=existing_file(given["model"]),
        config=existing_file(given["config"]),
        output=given["output"],
    )
    settings = _settings(given)
    sink = RecordSink(given["output"], console)
    try:
        if documents is not None and given["documents_file"] is not None:
            documents += _lines(given["documents_file"], console)
        # What is imported next imports MLX.
        require_mlx_for(settings, slots=slots_for(documents or given["choice"] or ()))

        from metal_gen.scoring.ranking import Method, RankOptions
        from metal_gen.scoring.tasks import Documents, task_of

        options = RankOptions.named(given["by"], given["method"], given["instruction"], given["top"])
        task = task_of(given["prompt"], given["choice"] or None, given["query"], documents)
        options.require_for(task)
        if isinstance(task, Documents) and options.method_for(settings.model) is Method.RERANKER:
            where = "a reranker, which has a prompt of its own"
            refuse_without_effect(given, OF_PROMPTS, where, "give --method likelihood")
        sink.write(run_rank(settings, task, options, console))
    finally:
        sink.close()


def _lines(name: str, console: Console) -> list[str]:
    """The lines of a file that are not blank."""
    read, length = [], 0
    with text_pieces(name, console, "documents", "rank --documents-file - ...") as pieces:
        for piece in pieces:
            read.append(piece)
            length += len(piece)
            if length > MOST_CHARACTERS:
                raise UsageError(
                    f"the documents {name} have more than {MOST_CHARACTERS:,} characters",
                    "rank so many in rows, with --jsonl",
                )
    return [line for line in "".join(read).splitlines() if line.strip()]


def _settings(given: dict[str, Any]) -> Settings:
    """The settings in force; `--choice` is this command's own, although a setting has the same name."""
    return settings_in_force({name: value for name, value in given.items() if name != "choice"})
