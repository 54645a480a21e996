"""`metal-gen batch`: answers every row of a file and writes a file of records; resumable."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from metal_gen.cli.batch.run import BatchOptions, BatchRun
from metal_gen.cli.input.setting_options import (
    CONSTRAINT_SETTINGS,
    OUTPUT,
    SAMPLING_SETTINGS,
    STOPPING_SETTINGS,
    QuietOption,
    VerboseOption,
    settings_in_force,
    with_settings,
)
from metal_gen.cli.output.output_file import (
    STREAM,
    existing_file,
    is_stdout,
    refuse_descriptor,
    require_different,
)
from metal_gen.cli.terminal.console import Console
from metal_gen.errors import ExitCode, UsageError
from metal_gen.files.paths import resolve

# Shown at the end of the help.
EXAMPLES = (
    "metal-gen batch prompts.jsonl -o texts.jsonl --model Qwen/Qwen3-0.6B --max-tokens 200 --resume",
    "metal-gen batch prompts.jsonl --check",
    "metal-gen batch - -o - -q < prompts.jsonl | jq -r .text",
)
ROWS = "Rows"
LONGEST_INTERVAL_S = 86_400.0


def _flag(names: str, help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(names, help=help, rich_help_panel=ROWS)
    return option


@with_settings(
    *("model", "adapter", "system", "raw", "thinking", "prefill", "template_arg", "compile", "blas"),
    *CONSTRAINT_SETTINGS,
    *SAMPLING_SETTINGS,
    *("samples", "logprobs"),
    *STOPPING_SETTINGS,
    *("max_seq_len", "batch_size", "cache_dtype", "model_dtype", "quantize", "rope_scaling"),
    "memory_limit_bytes",
    "prefix_cache",
    "prefix_file",
)
def batch(
    context: typer.Context,
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="Read rows from this JSONL file; - reads stdin")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write records to this JSONL file; - writes stdout"
        ),
    ] = None,
    resume: Annotated[bool, _flag("--resume", "Continue an interrupted run")] = False,
    retry_failed: Annotated[bool, _flag("--retry-failed", "Run failed rows again; needs --resume")] = False,
    overwrite: Annotated[bool, _flag("--overwrite", "Replace an existing output")] = False,
    strict: Annotated[bool, _flag("--strict", "Stop at the first row that fails")] = False,
    check: Annotated[bool, _flag("--check", "Check every row, and run none")] = False,
    ordered: Annotated[bool, _flag("--ordered", "Write records in input order, not as they finish")] = False,
    fsync_interval: Annotated[
        float,
        typer.Option(
            "--fsync-interval",
            min=0.0,
            metavar="SECONDS",
            help="Sync the output to disk this often",
            rich_help_panel=ROWS,
        ),
    ] = 5.0,
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
        bool, _flag("--keep-fields", "Copy all fields that are neither prompt nor parameters to the record")
    ] = False,
    summary: Annotated[
        str | None,
        typer.Option(
            "--summary",
            metavar="FILE",
            help="Write counts and times to this JSON file",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="auto|HOST:PORT",
            help="Run rows on the nodes of this Ray cluster",
            rich_help_panel=ROWS,
        ),
    ] = None,
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
    elif is_stdout(output):
        output = STREAM
    else:
        refuse_descriptor(output)
    if not fsync_interval <= LONGEST_INTERVAL_S:
        raise UsageError(f"--fsync-interval must be at most {LONGEST_INTERVAL_S:g}, not {fsync_interval:g}")
    if retry_failed and not resume:
        raise UsageError("--retry-failed needs --resume", "give both")
    if retry_failed and ordered:
        raise UsageError("--retry-failed contradicts --ordered", "rows that are run again come at the end")
    if resume and overwrite:
        raise UsageError("--resume contradicts --overwrite", "leave one of them out")
    if resume and output == STREAM:
        raise UsageError("--resume contradicts -o -", "name the file to continue: -o FILE")
    if output == STREAM:
        console.require_stdout()
    require_different(
        # A redirected file is compared under its own name too.
        input="/dev/stdin" if input == STREAM else input,
        model=existing_file(context.params["model"]),
        config=existing_file(context.params["config"]),
        output="/dev/stdout" if output == STREAM else output,
        **{"file that says which run made the output": _run_file(output)},
        summary=summary,
    )
    settings = settings_in_force(context.params)
    options = BatchOptions(
        input=input,
        output=output,
        resume=resume,
        retry_failed=retry_failed,
        overwrite=overwrite,
        strict=strict,
        ordered=ordered,
        fsync_interval=fsync_interval,
        summary=summary,
        cluster=cluster,
    )
    from metal_gen.batch.work import GenerateRows

    work = GenerateRows(field, keep_fields)
    run = BatchRun(settings, options, work, console)
    if run.check(work) if check else run.write():
        raise typer.Exit(ExitCode.FAILED_ROWS)


def _run_file(output: str | None) -> str | None:
    """Return the path of the run file next to the output; None for a stream."""
    from metal_gen.batch.output.run_file import run_path

    if output is None or output == STREAM or not output:
        return None
    # An error here is reported when the output is opened.
    with suppress(OSError):
        return str(run_path(resolve(Path(output))))
    return None


def _refuse_with_check(given: Mapping[str, object]) -> None:
    """Refuse options that write something: a check does not."""
    for name in ("output", "resume", "overwrite", "strict", "summary", "cluster"):
        if given[name]:
            raise UsageError(f"--{name} contradicts --check", "a check writes nothing")
