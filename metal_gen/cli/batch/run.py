"""One run of a batch: opens the files, runs the rows, and reports the result."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from metal_gen.cli.batch.failures import FailedRows, failure_line
from metal_gen.cli.batch.progress import BatchProgress
from metal_gen.cli.batch.report import BatchReporter, report_longest, write_summary
from metal_gen.cli.input.model_preparation import note_bundled_model, prepare_model, require_mlx_for
from metal_gen.cli.output.output_file import STREAM, OutputFile
from metal_gen.cli.output.report import report_start
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress import LOADING, ProgressBar
from metal_gen.config.settings import Settings
from metal_gen.errors import UsageError
from metal_gen.files.missing_file import how_to_read

if TYPE_CHECKING:
    from metal_gen.background import Background
    from metal_gen.batch.cluster.ray_nodes import RayCluster
    from metal_gen.batch.executor import RowExecutor
    from metal_gen.batch.input.rows import RowError
    from metal_gen.batch.input.stream import InputStream
    from metal_gen.batch.output.journal import Journal, StreamJournal
    from metal_gen.batch.work import GenerateRows, RowWork
    from metal_gen.generation.loading import PreparedModel, TextModel

# Maximum number of slots if batch_size is not set.
MOST_SLOTS = 8
# Minimum interval between syncs to disk while waiting for rows.
LEAST_WAIT_S = 1.0
_FOLDER = "name a file of rows; `metal-gen help batch` shows how to make a row of each file in a folder"


@dataclass(frozen=True)
class BatchOptions:
    """The options of the command that are not settings, by name."""

    input: str
    output: str | None
    resume: bool
    retry_failed: bool
    overwrite: bool
    strict: bool
    ordered: bool
    fsync_interval: float
    summary: str | None
    cluster: str | None


class BatchRun:
    """One run over one input.

    Args:
        settings: Settings in force.
        options: Options that are not settings.
        work: The work to do with each row.
        console: Shows the messages.
    """

    def __init__(self, settings: Settings, options: BatchOptions, work: "RowWork", console: Console) -> None:
        require_mlx_for(settings, slots=MOST_SLOTS)
        self._options = options
        self._work = work
        self._console = console
        self._input = _open_input(options.input, work.command)
        if self._input.is_file:
            self._input.require_json_lines()
        self._prepared: PreparedModel = prepare_model(
            settings, console, most_slots=MOST_SLOTS, scores=work.scores
        )

    def check(self, work: "GenerateRows") -> int:
        """Report the bad rows by reason, and the longest row; return the number of bad rows."""
        from metal_gen.batch.checking import check_rows
        from metal_gen.batch.input.encoding import RowEncoder

        prepared, console = self._prepared, self._console
        prepared.checkpoint.read_tokenizer()
        encoder = RowEncoder(prepared.checkpoint, prepared.settings, prepared.plan)
        self._input.require_json_lines()
        self._say_notices()
        failed = FailedRows()

        def note_failure(row: "RowError") -> None:
            failed.add(row)
            if console.verbosity:
                console.warn(failure_line(row))

        try:
            counts = check_rows(
                work.read(self._input), encoder, on_idle=self._input.wait, on_error=note_failure
            )
        finally:
            if not console.verbosity:
                for line in failed.lines():
                    console.warn(line)
        self._input.close()
        report_longest(encoder, prepared.plan.cache.max_seq_len, console)
        rows = "1 row" if counts.done == 1 else f"{counts.done} rows"
        console.note(f"{rows} can be run, {counts.failed} cannot")
        return counts.failed

    def write(self) -> int:
        """Run the rows that the output lacks; return the number of failed rows."""
        from metal_gen.batch.runner import run_rows

        options, console = self._options, self._console
        with ExitStack() as opened:
            opened.callback(self._input.close)
            summary = None if options.summary is None else OutputFile(Path(options.summary), "--summary")
            if summary is not None:
                opened.callback(summary.discard)
            stdout = sys.stdout
            cluster = None if options.cluster is None else self._join(options.cluster, opened)
            open_executor: Callable[[], RowExecutor]
            if cluster is None:
                # Loads the weights while the program waits for the first row.
                loading = self._prepared.in_background(self._prepared.load)
                open_executor = partial(self._open_slots, loading, opened)
            else:
                open_executor = partial(self._open_nodes, cluster)
            self._prepared.checkpoint.read_tokenizer()
            self._input.require_json_lines()
            journal = self._open_journal(stdout)
            opened.enter_context(journal)
            self._say_notices()
            if (template := self._prepared.checkpoint.chat_template) is not None:
                template.moment = journal.moment
            self._say_what_was_taken_out(journal)
            progress = BatchProgress(console, self._input.count_rows, len(journal.finished))
            output = None if options.output == STREAM else options.output
            reporter = opened.enter_context(BatchReporter(console, progress, output))
            counts = run_rows(
                self._work.read(self._input),
                open_executor(),
                journal,
                seed=journal.seed,
                strict=options.strict,
                ordered=options.ordered,
                on_idle=partial(wait_for_row, self._input, journal, options.fsync_interval),
                on_step=reporter.update,
                on_notice=reporter.notice,
                on_failure=reporter.failure,
            )
            journal.require_same_input()
            reporter.finish(counts, None if self._work.scores else journal.seed)
            if summary is not None:
                write_summary(summary, counts, self._prepared, journal.seed)
        return counts.failed + journal.found.failed

    def _say_notices(self) -> None:
        """Say what is worth knowing of the model, when all that could refuse the run has passed."""
        note_bundled_model(self._prepared.settings, self._console)
        for notice in self._prepared.notices:
            self._console.warn(notice)

    def _say_what_was_taken_out(self, journal: "Journal | StreamJournal") -> None:
        found = journal.found
        if found.damaged:
            lines = "1 damaged line was" if found.damaged == 1 else f"{found.damaged} damaged lines were"
            self._console.warn(
                f"{lines} removed from {self._options.output}",
                "their rows are run again, and their records come last",
            )
        if found.repeated:
            records = "1 record was" if found.repeated == 1 else f"{found.repeated} records were"
            self._console.warn(f"{records} removed from {self._options.output}: each row has one")

    def _open_journal(self, stdout: TextIO) -> "Journal | StreamJournal":
        from metal_gen.batch.output.journal import Journal, StreamJournal
        from metal_gen.batch.output.run_file import MOMENT
        from metal_gen.sampling.seed import choose_seed

        options = self._options
        if options.output == STREAM:
            seed = self._prepared.settings.seed
            return StreamJournal(stdout.buffer, choose_seed() if seed is None else seed)
        input = self._input if self._input.is_file and options.input != STREAM else None
        mark = {**self._work.mark(self._prepared), "ordered": str(options.ordered)}
        template = self._prepared.checkpoint.chat_template
        if template is not None and template.tells_time:
            mark[MOMENT] = None
        path, interval_s = Path(str(options.output)), options.fsync_interval
        if options.resume:
            return Journal.resume(
                path, mark, input=input, retry_failed=options.retry_failed, fsync_interval_s=interval_s
            )
        return Journal.create(
            path, mark, input=input, overwrite=options.overwrite, fsync_interval_s=interval_s
        )

    def _open_slots(self, loading: "Background[TextModel]", opened: ExitStack) -> "RowExecutor":
        from metal_gen.batch.slot_rows import SlotRows

        report_start(self._prepared, self._console)
        with ProgressBar(self._console, LOADING):
            model = loading.result()
        executor = opened.enter_context(self._work.open(model))
        if self._console.verbosity and isinstance(executor, SlotRows):
            self._console.note(_shown_rows(executor.slots, executor.rows_per_step))
        return executor

    def _join(self, address: str, opened: ExitStack) -> "RayCluster":
        from metal_gen.batch.cluster.node_settings import settings_of_nodes
        from metal_gen.batch.cluster.protocol import NodeTask
        from metal_gen.batch.cluster.ray_nodes import RayCluster
        from metal_gen.batch.cluster.worker import node_mark

        settings = settings_of_nodes(self._prepared)
        task = NodeTask(settings, MOST_SLOTS, node_mark(self._prepared), self._work)
        # Ray writes events of its processes to standard output, which is reserved for records.
        nowhere = opened.enter_context(Path(os.devnull).open("w"))  # noqa: SIM115
        opened.enter_context(redirect_stdout(nowhere))
        return opened.enter_context(RayCluster(address, task))

    def _open_nodes(self, cluster: "RayCluster") -> "RowExecutor":
        from metal_gen.batch.cluster.rows import ClusterRows

        return ClusterRows(cluster, on_news=self._console.note)


def wait_for_row(input: "InputStream", journal: "Journal | StreamJournal", fsync_interval_s: float) -> None:
    """Wait for the next row; if that takes long, sync the records to disk meanwhile."""
    if not input.wait(max(fsync_interval_s, LEAST_WAIT_S)):
        journal.sync()


def _open_input(name: str, command: str) -> "InputStream":
    from metal_gen.batch.input.stream import InputStream

    if name == STREAM:
        if sys.stdin is None:
            raise UsageError("INPUT - reads standard input, which is closed")
        return InputStream(io.FileIO(sys.stdin.fileno(), closefd=False), None, command)
    try:
        return InputStream(io.FileIO(name), name, command)
    except OSError as error:
        hint = _FOLDER if isinstance(error, IsADirectoryError) else how_to_read(error, Path(name))
        raise UsageError(f"the input {name} cannot be read: {error.strerror}", hint) from None
    except ValueError as error:
        raise UsageError(f"the input {name} cannot be read: {error}") from None


def _shown_rows(texts: int, rows: int) -> str:
    """Return a note on the number of rows that a step computes."""
    why = " (the results of fewer would depend on how many there are, with this BLAS)" if rows > texts else ""
    return f"rows computed for a token of each of {texts} texts: {rows}{why}"
