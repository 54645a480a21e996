"""The options of commands that compute the rows of a file, and what contradicts what."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from metal_gen.cli.batch.run import BatchOptions
from metal_gen.cli.input.setting_options import OUTPUT, flag_of, is_given
from metal_gen.cli.output.output_file import (
    STREAM,
    existing_file,
    is_stdout,
    refuse_descriptor,
    require_different,
)
from metal_gen.cli.terminal.console import Console
from metal_gen.errors import UsageError
from metal_gen.files.paths import resolve
from metal_gen.files.sync import FSYNC_INTERVAL_S

ROWS = "Rows"
LONGEST_INTERVAL_S = 86_400.0


def row_flag(names: str, help: str) -> typer.models.OptionInfo:
    """A switch of the panel of rows."""
    option: typer.models.OptionInfo = typer.Option(names, help=help, rich_help_panel=ROWS)
    return option


ResumeOption = Annotated[bool, row_flag("--resume", "Continue an interrupted run")]
RetryFailedOption = Annotated[bool, row_flag("--retry-failed", "Run failed rows again; needs --resume")]
OverwriteOption = Annotated[bool, row_flag("--overwrite", "Replace an existing output")]
StrictOption = Annotated[bool, row_flag("--strict", "Stop at the first row that fails")]
OrderedOption = Annotated[bool, row_flag("--ordered", "Write records in input order, not as they finish")]
FsyncIntervalOption = Annotated[
    float | None,
    typer.Option(
        "--fsync-interval",
        min=0.0,
        metavar="SECONDS",
        help="Sync the output to disk this often",
        show_default=f"{FSYNC_INTERVAL_S:g}",
        rich_help_panel=ROWS,
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="auto|HOST:PORT",
        help="Run rows on the nodes of this Ray cluster",
        rich_help_panel=ROWS,
    ),
]
SummaryOption = Annotated[
    str | None,
    typer.Option(
        "--summary",
        metavar="FILE",
        help="Write counts and times to this JSON file, in place of an older one",
        rich_help_panel=OUTPUT,
    ),
]
# Names of those that are of no use without rows.
OF_ROWS = (
    *("resume", "retry_failed", "overwrite", "strict", "ordered", "fsync_interval"),
    *("cluster", "summary", "keep_fields"),
)
# And where records do not go to a file.
OF_FILES = ("overwrite", "fsync_interval")


def batch_options(given: Mapping[str, Any], input: str, output: str | None, console: Console) -> BatchOptions:
    """Check the options of a run over rows.

    Args:
        given: The command's parameters by name.
        input: File of rows; `-` is standard input.
        output: File of records; `-` is standard output, and None writes none.
        console: Console of the run.

    Raises:
        UsageError: Two options contradict each other, or a file is named twice.
    """
    if output is not None:
        if is_stdout(output):
            output = STREAM
        else:
            refuse_descriptor(output)
    resume, retry_failed = bool(given["resume"]), bool(given["retry_failed"])
    interval_s = FSYNC_INTERVAL_S if given["fsync_interval"] is None else given["fsync_interval"]
    if not interval_s <= LONGEST_INTERVAL_S:
        raise UsageError(f"--fsync-interval must be at most {LONGEST_INTERVAL_S:g}, not {interval_s:g}")
    if retry_failed and not resume:
        raise UsageError("--retry-failed needs --resume", "give both")
    if retry_failed and given["ordered"]:
        raise UsageError("--retry-failed contradicts --ordered", "rows that are run again come at the end")
    if resume and given["overwrite"]:
        raise UsageError("--resume contradicts --overwrite", "leave one of them out")
    if resume and output == STREAM:
        raise UsageError("--resume contradicts -o -", "name the file to continue: -o FILE")
    for name in OF_FILES:
        if output == STREAM and is_given(given[name]):
            raise UsageError(
                f"{flag_of(name)} has no effect on standard output",
                f"name a file, or leave {flag_of(name)} out",
            )
    if output == STREAM:
        console.require_stdout()
    require_different(
        # A redirected file is compared under its own name too.
        input="/dev/stdin" if input == STREAM else input,
        model=existing_file(given["model"]),
        config=existing_file(given["config"]),
        output="/dev/stdout" if output == STREAM else output,
        **{"file that says which run made the output": _run_file(output)},
        summary=given["summary"],
    )
    return BatchOptions(
        input=input,
        output=output,
        resume=resume,
        retry_failed=retry_failed,
        overwrite=given["overwrite"],
        strict=given["strict"],
        ordered=given["ordered"],
        fsync_interval=interval_s,
        summary=given["summary"],
        cluster=given["cluster"],
    )


def refuse_without_rows(given: Mapping[str, Any]) -> None:
    """Refuse options of rows where there is one text.

    Raises:
        UsageError: One is given.
    """
    for name in OF_ROWS:
        if is_given(given[name]):
            raise UsageError(f"{flag_of(name)} needs --jsonl", "give both, or leave it out")


def _run_file(output: str | None) -> str | None:
    """Return the path of the run file next to the output; None for a stream."""
    from metal_gen.batch.output.run_file import run_path

    if output is None or output == STREAM or not output:
        return None
    # An error here is reported when the output is opened.
    with suppress(OSError):
        return str(run_path(resolve(Path(output))))
    return None
