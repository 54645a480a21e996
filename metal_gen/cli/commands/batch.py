"""`metal-gen batch`: answers every row of a file and writes a file of records; resumable."""

from collections.abc import Mapping
from typing import Annotated

import typer

from metal_gen.cli.batch.options import (
    ROWS,
    ClusterOption,
    FsyncIntervalOption,
    OrderedOption,
    OverwriteOption,
    ResumeOption,
    RetryFailedOption,
    StrictOption,
    SummaryOption,
    batch_options,
    row_flag,
)
from metal_gen.cli.batch.run import BatchRun
from metal_gen.cli.input.setting_options import (
    CONSTRAINT_SETTINGS,
    SAMPLING_SETTINGS,
    SPECULATION_SETTINGS,
    STOPPING_SETTINGS,
    QuietOption,
    VerboseOption,
    flag_of,
    is_given,
    settings_in_force,
    with_settings,
)
from metal_gen.cli.terminal.console import Console
from metal_gen.errors import ExitCode, UsageError

# Shown at the end of the help.
EXAMPLES = (
    "metal-gen batch prompts.jsonl -o texts.jsonl --model Qwen/Qwen3-0.6B --max-tokens 200 --resume",
    "metal-gen batch prompts.jsonl --check",
    "metal-gen batch - -o - -q < prompts.jsonl | jq -r .text",
)


@with_settings(
    *("model", "adapter", "system", "raw", "thinking", "prefill", "template_arg", "compile", "blas"),
    *CONSTRAINT_SETTINGS,
    *("tools", "tool_choice"),
    *SAMPLING_SETTINGS,
    *("samples", "logprobs"),
    *STOPPING_SETTINGS,
    *SPECULATION_SETTINGS,
    *("max_seq_len", "batch_size", "cache_dtype", "model_dtype", "quantize", "rope_scaling"),
    *("chunk_size", "memory_limit_bytes", "prefix_cache", "prefix_file", "prefix_cache_dir"),
)
def batch(
    context: typer.Context,
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="Read rows from this JSONL file; - reads stdin")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write records to this JSONL file, a new one unless --resume or --overwrite is given; "
            "- writes stdout",
        ),
    ] = None,
    resume: ResumeOption = False,
    retry_failed: RetryFailedOption = False,
    overwrite: OverwriteOption = False,
    strict: StrictOption = False,
    check: Annotated[bool, row_flag("--check", "Check every row, and run none")] = False,
    ordered: OrderedOption = False,
    fsync_interval: FsyncIntervalOption = None,
    field: Annotated[
        str | None,
        typer.Option(
            "--field",
            metavar="NAME",
            help="Take the prompt from this field, and copy the other fields to the record",
            rich_help_panel=ROWS,
        ),
    ] = None,
    keep_fields: Annotated[
        bool,
        row_flag("--keep-fields", "Copy all fields that are neither prompt nor parameters to the record"),
    ] = False,
    summary: SummaryOption = None,
    cluster: ClusterOption = None,
    verbose: VerboseOption = 0,
    quiet: QuietOption = False,
    **settings_given: object,
) -> None:
    """Answer every row of a JSONL file, and write crash-safe JSONL.

    A row is {"id": 1, "prompt": "..."} or {"id": 1, "messages": [...]}, and may have any setting of
    sampling and stopping. A request in OpenAI's batch format is a row too. Without an id, a row has the
    number of its line.
    """
    console = Console(quiet=quiet, verbosity=verbose)
    if check:
        _refuse_with_check(context.params)
    elif output is None:
        raise UsageError("there is no output", "name one with -o FILE, or -o - for standard output")
    options = batch_options(context.params, input, output, console)
    settings = settings_in_force(context.params)
    from metal_gen.batch.work import GenerateRows

    work = GenerateRows(field, keep_fields)
    run = BatchRun(settings, options, work, console)
    if run.check(work) if check else run.write():
        raise typer.Exit(ExitCode.FAILED_ROWS)


def _refuse_with_check(given: Mapping[str, object]) -> None:
    """Refuse options that write something: a check does not."""
    for name in (
        "output",
        "resume",
        "overwrite",
        "strict",
        "ordered",
        "fsync_interval",
        "summary",
        "cluster",
    ):
        if is_given(given[name]):
            raise UsageError(f"{flag_of(name)} contradicts --check", "a check writes nothing")
