"""`metal-gen batch`: a file of prompts in, a file of texts out, which a later run can go on with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from metal_gen.cli.batch_run import STREAM, BatchOptions, BatchRun
from metal_gen.cli.console import Console
from metal_gen.cli.setting_options import (
    CACHE,
    OUTPUT,
    SAMPLING,
    STOPPING,
    ConfigOption,
    GreedyOption,
    QuietOption,
    VerboseOption,
    setting_option,
    settings_in_force,
)
from metal_gen.config.settings import SETTINGS
from metal_gen.errors import ExitCode, UsageError

ROWS = "Rows"


def _flag(names: str, help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(names, help=help, rich_help_panel=ROWS)
    return option


def batch(
    context: typer.Context,
    input: Annotated[str, typer.Argument(metavar="INPUT", help="JSONL file of rows; - is stdin.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="JSONL file of texts; - is stdout.")
    ] = None,
    model: Annotated[str | None, setting_option("model", "MODEL", None, "-m")] = None,
    config: ConfigOption = None,
    resume: Annotated[bool, _flag("--resume", "Go on with an output that was broken off.")] = False,
    retry_failed: Annotated[
        bool, _flag("--retry-failed", "With --resume, run rows again that failed.")
    ] = False,
    overwrite: Annotated[bool, _flag("--overwrite", "Throw an output away that is there.")] = False,
    strict: Annotated[bool, _flag("--strict", "Stop at the first row that fails.")] = False,
    check: Annotated[bool, _flag("--check", "Only see whether every row could be run.")] = False,
    ordered: Annotated[bool, _flag("--ordered", "Keep the order of the rows; else as finished.")] = False,
    fsync_interval: Annotated[
        float,
        typer.Option(
            "--fsync-interval",
            min=0.0,
            metavar="SECONDS",
            help="Most work that a failing machine can lose.",
            rich_help_panel=ROWS,
        ),
    ] = 5.0,
    field: Annotated[
        str | None,
        typer.Option(
            "--field",
            metavar="NAME",
            help="Where the prompt is; hand the rest on.",
            rich_help_panel=ROWS,
        ),
    ] = None,
    summary: Annotated[
        str | None,
        typer.Option("--summary", metavar="FILE", help="Write counts and times.", rich_help_panel=OUTPUT),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="auto|HOST:PORT",
            help="Run rows at the nodes of a Ray that is running.",
            rich_help_panel=ROWS,
        ),
    ] = None,
    system: Annotated[str | None, setting_option("system", "TEXT")] = None,
    raw: Annotated[
        bool | None, typer.Option("--raw/--no-raw", help=SETTINGS["raw"].help, show_default=False)
    ] = None,
    thinking: Annotated[
        bool | None,
        typer.Option("--thinking/--no-thinking", help=SETTINGS["thinking"].help, show_default=False),
    ] = None,
    max_tokens: Annotated[str | None, setting_option("max_tokens", "N", STOPPING, "-n")] = None,
    greedy: GreedyOption = False,
    temperature: Annotated[str | None, setting_option("temperature", "T", SAMPLING)] = None,
    top_k: Annotated[str | None, setting_option("top_k", "K", SAMPLING)] = None,
    top_p: Annotated[str | None, setting_option("top_p", "P", SAMPLING)] = None,
    min_p: Annotated[str | None, setting_option("min_p", "P", SAMPLING)] = None,
    repetition_penalty: Annotated[str | None, setting_option("repetition_penalty", "R", SAMPLING)] = None,
    seed: Annotated[str | None, setting_option("seed", "S", SAMPLING)] = None,
    samples: Annotated[str | None, setting_option("samples", "N", SAMPLING)] = None,
    stop: Annotated[list[str] | None, setting_option("stop", "TEXT", STOPPING)] = None,
    max_seq_len: Annotated[str | None, setting_option("max_seq_len", "N", CACHE)] = None,
    batch_size: Annotated[str | None, setting_option("batch_size", "N", CACHE)] = None,
    cache_dtype: Annotated[str | None, setting_option("cache_dtype", "DTYPE", CACHE)] = None,
    model_dtype: Annotated[str | None, setting_option("model_dtype", "DTYPE", CACHE)] = None,
    compile: Annotated[str | None, setting_option("compile", "auto|on|off")] = None,
    blas: Annotated[str | None, setting_option("blas", "LIBRARY")] = None,
    verbose: VerboseOption = 0,
    quiet: QuietOption = False,
) -> None:
    """Answer every row of a JSONL file, into another that survives a crash.

    A row is {"id": 1, "prompt": "..."} or {"id": 1, "messages": [...]}, with any setting of sampling and
    stopping beside them, or a request of OpenAI's batch form. Without an id it has its line's number.
    """
    console = Console(quiet=quiet, verbosity=verbose)
    if check:
        _refuse_with_check(context.params)
    elif output is None:
        raise UsageError("there is no output", "name one with -o FILE, or -o - for standard output")
    if retry_failed and not resume:
        raise UsageError("--retry-failed needs --resume", "give both")
    if retry_failed and ordered:
        raise UsageError("--retry-failed contradicts --ordered", "rows that are run again come at the end")
    if resume and (overwrite or output == STREAM):
        raise UsageError(f"--resume contradicts {'--overwrite' if overwrite else '-o -'}")
    if output == STREAM:
        console.require_stdout()
    _require_different(input=input, output=output, summary=summary)
    settings = settings_in_force(context.params)
    options = BatchOptions(
        input=input,
        output=output,
        field=field,
        resume=resume,
        retry_failed=retry_failed,
        overwrite=overwrite,
        strict=strict,
        ordered=ordered,
        fsync_interval=fsync_interval,
        summary=summary,
        cluster=cluster,
    )
    run = BatchRun(settings, options, console)
    if run.check() if check else run.write():
        raise typer.Exit(ExitCode.FAILED_ROWS)


def _refuse_with_check(given: Mapping[str, object]) -> None:
    """Nothing is written by a check."""
    for name in ("output", "resume", "overwrite", "strict", "summary", "cluster"):
        if given[name]:
            raise UsageError(f"--{name} contradicts --check", "a check writes nothing")


def _require_different(**files: str | None) -> None:
    """Refuse to write over what is read, or to write two things to one place."""
    seen: dict[Path, str] = {}
    for what, name in files.items():
        if name is None or name == STREAM:
            continue
        path = Path(name).resolve()
        if path in seen and (path.is_file() or not path.exists()):
            raise UsageError(f"the {what} {name} is the {seen[path]}", "name another file")
        seen[path] = what
