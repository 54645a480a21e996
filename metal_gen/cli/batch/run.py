"""One run of `metal-gen batch`: opens the files, has the rows run, and says how it went."""

import os
import stat
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from metal_gen.cli.batch.report import BatchReporter, write_summary
from metal_gen.cli.input.model_preparation import prepare_model
from metal_gen.cli.output.output_file import STREAM, OutputFile
from metal_gen.cli.output.report import report_start
from metal_gen.cli.terminal.console import Console
from metal_gen.config.settings import Settings
from metal_gen.errors import UsageError

if TYPE_CHECKING:
    from metal_gen.batch.cluster.ray_nodes import RayCluster
    from metal_gen.batch.executor import RowExecutor
    from metal_gen.batch.output.journal import Journal, StreamJournal
    from metal_gen.generation.loading import PreparedModel

# Where batch_size is left open.
MOST_SLOTS = 8


@dataclass(frozen=True)
class BatchOptions:
    """What was asked for beside the settings, each by the name of its option."""

    input: str
    output: str | None
    field: str | None
    resume: bool
    retry_failed: bool
    overwrite: bool
    strict: bool
    ordered: bool
    fsync_interval: float
    summary: str | None
    cluster: str | None


class BatchRun:
    """One run over one input."""

    def __init__(self, settings: Settings, options: BatchOptions, console: Console) -> None:
        from metal_gen.device.backend import require_mlx

        require_mlx(settings.blas)
        self._options = options
        self._console = console
        self._stream = _open_input(options.input)
        self._prepared: PreparedModel = prepare_model(settings, console, most_slots=MOST_SLOTS)
        for notice in self._prepared.notices:
            console.warn(notice)

    def check(self) -> int:
        """Say what is wrong with which row; returns how many are bad."""
        from metal_gen.batch.input.reading import read_rows
        from metal_gen.batch.runner import check_rows

        self._prepared.checkpoint.read_tokenizer()
        with self._stream as stream:
            counts = check_rows(
                read_rows(stream, field=self._options.field),
                self._prepared,
                on_error=lambda row: self._console.warn(f"line {row.number}: {row.reason}"),
            )
        self._console.note(f"{counts.done} rows can be run, {counts.failed} cannot")
        return counts.failed

    def write(self) -> int:
        """Run what the output lacks; returns how many rows failed."""
        from metal_gen.batch.input.reading import read_rows
        from metal_gen.batch.runner import run_rows

        options, console = self._options, self._console
        self._prepared.checkpoint.read_tokenizer()
        with ExitStack() as opened:
            opened.callback(self._stream.close)
            summary = None if options.summary is None else OutputFile(Path(options.summary), "--summary")
            if summary is not None:
                opened.callback(summary.discard)
            stdout = sys.stdout
            cluster = None if options.cluster is None else self._join(options.cluster, opened)
            journal = self._open_journal(stdout)
            opened.enter_context(journal)
            self._say_what_was_taken_out(journal)
            reporter = opened.enter_context(BatchReporter(console, _share_read(self._stream)))
            executor = self._open_slots(opened) if cluster is None else self._open_nodes(cluster)
            counts = run_rows(
                read_rows(self._stream, field=options.field),
                executor,
                journal,
                seed=journal.seed,
                strict=options.strict,
                ordered=options.ordered,
                on_step=reporter.update,
                on_notice=console.warn,
            )
            reporter.finish(counts, journal.seed)
            if summary is not None:
                write_summary(summary, counts, self._prepared, journal.seed)
        return counts.failed + journal.found.failed

    def _say_what_was_taken_out(self, journal: "Journal | StreamJournal") -> None:
        found = journal.found
        if found.damaged:
            lines = "1 damaged line has" if found.damaged == 1 else f"{found.damaged} damaged lines have"
            self._console.warn(
                f"{lines} been taken out of {self._options.output}", "their rows are run again, and come last"
            )
        if found.repeated:
            records = "1 record has" if found.repeated == 1 else f"{found.repeated} records have"
            self._console.warn(
                f"{records} been taken out of {self._options.output}: their rows had one already"
            )

    def _open_journal(self, stdout: TextIO) -> "Journal | StreamJournal":
        from metal_gen.batch.output.fingerprint import fingerprint
        from metal_gen.batch.output.journal import Journal, StreamJournal
        from metal_gen.sampling.seed import choose_seed

        options = self._options
        if options.output == STREAM:
            seed = self._prepared.settings.seed
            return StreamJournal(stdout.buffer, choose_seed() if seed is None else seed)
        is_file = stat.S_ISREG(os.fstat(self._stream.fileno()).st_mode)
        input = Path(options.input) if is_file and options.input != STREAM else None
        mark = {**fingerprint(self._prepared, options.field), "ordered": str(options.ordered)}
        path, interval_s = Path(str(options.output)), options.fsync_interval
        if options.resume:
            return Journal.resume(
                path, mark, input=input, retry_failed=options.retry_failed, fsync_interval_s=interval_s
            )
        return Journal.create(
            path, mark, input=input, overwrite=options.overwrite, fsync_interval_s=interval_s
        )

    def _open_slots(self, opened: ExitStack) -> "RowExecutor":
        from metal_gen.batch.slot_rows import slot_rows

        report_start(self._prepared, self._console)
        return opened.enter_context(slot_rows(self._prepared.load()))

    def _join(self, address: str, opened: ExitStack) -> "RayCluster":
        from metal_gen.batch.cluster.protocol import NodeTask
        from metal_gen.batch.cluster.ray_nodes import RayCluster
        from metal_gen.batch.cluster.worker import node_mark
        from metal_gen.hub.reference import LocalModel, parse_model_reference

        settings = self._prepared.settings
        if settings.model and isinstance(parse_model_reference(settings.model), LocalModel):
            # Processes at nodes work in folders of their own.
            absolute = str(self._prepared.checkpoint.folder.resolve())
            settings = settings.override({"model": absolute}, settings.source("model"))
        if adapters := self._prepared.checkpoint.weights.adapters:
            named = tuple(f"{each.folder.resolve()}={each.scale!r}" for each in adapters)
            settings = settings.override({"adapter": named}, settings.source("adapter"))
        task = NodeTask(settings, MOST_SLOTS, node_mark(self._prepared))
        # Ray writes what happens to its processes to standard output, which is for records.
        nowhere = opened.enter_context(Path(os.devnull).open("w"))  # noqa: SIM115
        opened.enter_context(redirect_stdout(nowhere))
        return opened.enter_context(RayCluster(address, task))

    def _open_nodes(self, cluster: "RayCluster") -> "RowExecutor":
        from metal_gen.batch.cluster.rows import ClusterRows

        return ClusterRows(cluster, on_news=self._console.note)


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
