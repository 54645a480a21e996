"""Shows the progress of a batch: a live line on a terminal, or a line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from metal_gen.cli.terminal.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from metal_gen.batch.runner import BatchCounts

DRAW_INTERVAL_S = 0.1
# About a hundred lines in a night's log; the first one comes early enough to show that the batch is running.
FIRST_LOG_S, LOG_INTERVAL_S = 60.0, 300.0
# Columns of the screen: next to the words, and for a bar if there is room.
SPINNER_WIDTH = 2
BAR_WIDTH, LEAST_WITH_BAR = 20, 72


class BatchProgress:
    """Shows counts while a batch runs.

    Args:
        console: The console of the run.
        count_rows: Returns the number of rows in the input; None if unknown. Called at most once.
        finished: Number of rows finished by earlier runs.
    """

    def __init__(self, console: Console, count_rows: Callable[[], int | None], finished: int = 0) -> None:
        self._console = console
        self._count_rows = count_rows
        self._finished = finished
        self._total: int | None = None
        self._is_counted = False
        self._begin_s = time.perf_counter()
        self._next_s = self._begin_s + (DRAW_INTERVAL_S if console.draws_bars else FIRST_LOG_S)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def update(self, counts: "BatchCounts") -> None:
        """Show these counts if it is time to."""
        if self._console.quiet or time.perf_counter() < self._next_s:
            return
        self._next_s = time.perf_counter() + (DRAW_INTERVAL_S if self._console.draws_bars else LOG_INTERVAL_S)
        if not self._is_counted:
            self._total, self._is_counted = self._count_rows(), True
        if self._console.draws_bars:
            self._draw(counts)
        else:
            self._console.note("; ".join(self.parts(counts)))

    def close(self) -> None:
        """Remove the line from the screen; the next counts draw it again."""
        progress, self._progress = self._progress, None
        if progress is not None:
            self._console.bar = None
            progress.stop()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Remove the line while a message is written."""
        self.close()
        yield

    def parts(self, counts: "BatchCounts") -> list[str]:
        """Return the parts of the line, the most important first."""
        done = counts.done + counts.failed + self._finished
        failed = [f"{counts.failed} failed"] if counts.failed else []
        rest = [f"{counts.completion_tps:.1f} tok/s", f"{counts.slots_in_use} of {counts.slots} slots"]
        if not self._total:
            return [f"{done} rows", *failed, *rest]
        total = max(self._total, done)
        left_s = self._left_s(counts.done + counts.failed, total - done)
        left = [] if left_s is None else [f"{duration(left_s)} left"]
        return [f"{done}/{total} rows", f"{100 * done // total} %", *left, *failed, *rest]

    def _left_s(self, done: int, left: int) -> float | None:
        """Return the estimated seconds left, from the rows that this run has done so far."""
        return (time.perf_counter() - self._begin_s) * left / done if done else None

    def _draw(self, counts: "BatchCounts") -> None:
        # A message of another thread may close the line meanwhile.
        progress = self._progress
        if progress is None:
            progress = self._progress = _line_on_screen(has_total=bool(self._total))
            self._task = progress.add_task("", total=self._total)
            self._console.bar, Console.on_screen = self, self._console
            progress.start()
        room = progress.console.width - SPINNER_WIDTH
        if len(progress.columns) > 2:
            room -= BAR_WIDTH + 1
        if self._task is not None:
            done = counts.done + counts.failed + self._finished
            progress.update(self._task, description=fit(self.parts(counts), room), completed=done)


def fit(parts: list[str], width: int) -> str:
    """Join as many parts, from the first, as fit into a line of this width."""
    line = parts[0]
    for part in parts[1:]:
        longer = f"{line}  {part}"
        if len(longer) > width:
            break
        line = longer
    return line[:width]


def duration(seconds: float) -> str:
    """Format a duration as minutes and seconds, with hours if needed."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _line_on_screen(*, has_total: bool) -> "Progress":
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    from metal_gen.cli.terminal.progress_columns import ScreenOfBars

    console = ScreenOfBars()
    words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
    bars = [BarColumn(BAR_WIDTH)] if has_total and console.width >= LEAST_WITH_BAR else []
    return Progress(SpinnerColumn(), words, *bars, console=console, transient=True)
