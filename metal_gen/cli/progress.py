"""Progress bars on a terminal's stderr; nothing at all in a log."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from metal_gen.cli.console import Console
from metal_gen.control_characters import visible

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

PATIENCE_S = 0.5
# Cells of a screen: for the numbers beside a bar, and what is left of the others on a narrow one.
BYTES_WIDTH, TOKENS_WIDTH = 34, 24
NARROWEST_DESCRIPTION = 6
NARROWEST_BAR = 12


class ProgressBar:
    """A bar that appears when work lasts, and is gone when it ends.

    Args:
        console: Says whether there is a terminal to draw on.
        description: What is going on.
        is_bytes: Count bytes, with their rate, rather than tokens.
    """

    def __init__(self, console: Console, description: str, *, is_bytes: bool = False) -> None:
        self._console = console
        self._wanted = console.draws_bars
        self._description = description
        self._is_bytes = is_bytes
        self._start_s = time.perf_counter()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def update(self, done: int, total: int | None) -> None:
        """Show how far the work is; without a total, only how much has been done."""
        if not self._wanted or time.perf_counter() - self._start_s < PATIENCE_S:
            return
        if self._progress is None:
            self._console.end_text()
            self._progress = self._make(has_total=total is not None)
            self._task = self._progress.add_task(visible(self._description), total=total)
            self._progress.start()
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._wanted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make(self, *, has_total: bool) -> "Progress":
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column

        console = RichConsole(stderr=True)
        room = console.width - (BYTES_WIDTH if self._is_bytes else TOKENS_WIDTH)
        bars = [BarColumn()] if room >= NARROWEST_BAR + NARROWEST_DESCRIPTION else []
        column = Column(
            no_wrap=True,
            overflow="ellipsis",
            max_width=max(NARROWEST_DESCRIPTION, room - (NARROWEST_BAR if bars else 0)),
        )
        description = TextColumn("{task.description}", markup=False, table_column=column)
        columns: list[ProgressColumn] = [description, *bars]
        if not has_total:
            columns = [
                SpinnerColumn(),
                description,
                TextColumn("{task.completed} tokens"),
                TimeElapsedColumn(),
            ]
        elif self._is_bytes:
            columns += [DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
        else:
            columns += [MofNCompleteColumn(), TimeRemainingColumn()]
        return Progress(*columns, console=console, transient=True)


class PhaseBar:
    """The bar of whatever is going on at the time.

    Args:
        console: As of `ProgressBar`.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._bar: ProgressBar | None = None

    def update(self, phase: str, done: int, total: int | None) -> None:
        """Show how far a phase is; the first of another one takes the bar off that was there."""
        if self._bar is None or phase != self._phase:
            self.close()
            self._phase, self._bar = phase, ProgressBar(self._console, phase)
        self._bar.update(done, total)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
