"""`metal-gen batch`: a file of prompts in, a file of texts out, which a later run can go on with."""

import os
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from metal_gen.cli.batch_report import BatchReporter, write_summary
from metal_gen.cli.console import Console
from metal_gen.cli.model_preparation import prepare_model
from metal_gen.cli.output_file import OutputFile
from metal_gen.cli.report import report_start
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
from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from metal_gen.batch.runner import BatchCounts
    from metal_gen.loading import PreparedModel

ROWS = "Rows"
STREAM = "-"
# Where batch_size is left open.
MOST_SLOTS = 8


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
    run = _BatchRun(
        settings,
        input,
        field,
        console,
        strict=strict,
        ordered=ordered,
        summary=summary,
        fsync_interval_s=fsync_interval,
    )
    if check:
        failed = run.check()
    else:
        failed = run.write_to(str(output), resume=resume, retry_failed=retry_failed, overwrite=overwrite)
    if failed:
        raise typer.Exit(ExitCode.FAILED_ROWS)


class _BatchRun:
    """One run over one input."""

    def __init__(
        self,
        settings: Settings,
        input: str,
        field: str | None,
        console: Console,
        *,
        strict: bool,
        ordered: bool,
        summary: str | None,
        fsync_interval_s: float,
    ) -> None:
        from metal_gen.backend import require_mlx

        require_mlx(settings.blas)
        self.input = input
        self.field = field
        self.console = console
        self.strict = strict
        self.ordered = ordered
        self.fsync_interval_s = fsync_interval_s
        self.summary = summary
        self._stream = _open_input(input)
        self.prepared: PreparedModel = prepare_model(settings, console, most_slots=MOST_SLOTS)
        for notice in self.prepared.notices:
            console.warn(notice)

    def check(self) -> int:
        """Say what is wrong with which row; returns how many are bad."""
        from metal_gen.batch.reading import read_rows
        from metal_gen.batch.runner import check_rows

        self.prepared.checkpoint.read_tokenizer()
        with self._stream as stream:
            counts = check_rows(
                read_rows(stream, field=self.field),
                self.prepared,
                on_error=lambda row: self.console.warn(f"line {row.number}: {row.reason}"),
            )
        self.console.note(f"{counts.done} rows can be run, {counts.failed} cannot")
        return counts.failed

    def write_to(self, output: str, *, resume: bool, retry_failed: bool, overwrite: bool) -> int:
        """Run what the output lacks; returns how many rows failed."""
        from metal_gen.batch.fingerprint import fingerprint
        from metal_gen.batch.journal import Journal, StreamJournal
        from metal_gen.batch.reading import read_rows
        from metal_gen.batch.runner import run_rows
        from metal_gen.sampling.seed import choose_seed

        self.prepared.checkpoint.read_tokenizer()
        with ExitStack() as opened:
            opened.callback(self._stream.close)
            summary = None if self.summary is None else OutputFile(Path(self.summary), "--summary")
            if summary is not None:
                opened.callback(summary.discard)
            journal: Journal | StreamJournal
            if output == STREAM:
                given = self.prepared.settings.seed
                seed = choose_seed() if given is None else given
                journal = StreamJournal(sys.stdout.buffer)
            else:
                is_file = stat.S_ISREG(os.fstat(self._stream.fileno()).st_mode)
                input = Path(self.input) if is_file and self.input != STREAM else None
                mark = {**fingerprint(self.prepared, input, self.field), "ordered": str(self.ordered)}
                if resume:
                    file = Journal.resume(
                        Path(output), mark, retry_failed=retry_failed, fsync_interval_s=self.fsync_interval_s
                    )
                else:
                    file = Journal.create(
                        Path(output), mark, overwrite=overwrite, fsync_interval_s=self.fsync_interval_s
                    )
                journal, seed = file, file.seed
            opened.enter_context(journal)
            if journal.found.damaged:
                self.console.warn(f"{journal.found.damaged} damaged lines have been taken out of {output}")
            report_start(self.prepared, self.console)
            share_read = _share_read(self._stream)
            reporter = opened.enter_context(BatchReporter(self.console, share_read))
            model = self.prepared.load()
            counts: BatchCounts = run_rows(
                read_rows(self._stream, field=self.field),
                model,
                journal,
                seed=seed,
                strict=self.strict,
                ordered=self.ordered,
                on_step=reporter.update,
                on_notice=self.console.warn,
            )
            reporter.finish(counts, seed)
            if summary is not None:
                write_summary(summary, counts, self.prepared, seed)
        return counts.failed + journal.found.failed


def _refuse_with_check(given: Mapping[str, object]) -> None:
    """Nothing is written by a check."""
    for name in ("output", "resume", "overwrite", "strict", "summary"):
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


def _share_read(stream: BinaryIO) -> Callable[[], float] | None:
    """How much of an input has been read, 0 to 1; None where its length is not known."""
    status = os.fstat(stream.fileno())
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return None
    return lambda: stream.tell() / status.st_size


def _open_input(name: str) -> BinaryIO:
    if name == STREAM:
        if sys.stdin is None:
            raise UsageError("INPUT - reads standard input, which is closed")
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UsageError(f"the input {name} cannot be read: {error.strerror}") from None
