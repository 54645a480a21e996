"""Progress bars on a terminal's stderr; nothing at all in a log."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from metal_gen.cli.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_S = 0.5


class ProgressBar:
    """A bar that appears when work lasts, and is gone when it ends.

    Args:
        console: Says whether there is a terminal to draw on.
        description: What is going on.
        is_bytes: Count bytes, with their rate, rather than tokens.
    """

    def __init__(self, console: Console, description: str, *, is_bytes: bool = False) -> None:
        self._wanted = console.stderr_is_terminal and not console.quiet
        self._description = description
        self._is_bytes = is_bytes
        self._start_s = time.perf_counter()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def update(self, done: int, total: int) -> None:
        """Show how far the work is."""
        if not self._wanted or time.perf_counter() - self._start_s < PATIENCE_S:
            return
        if self._progress is None:
            self._progress = self._make()
            self._task = self._progress.add_task(self._description, total=total)
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

    def _make(self) -> "Progress":
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        counts = (DownloadColumn(), TransferSpeedColumn()) if self._is_bytes else (MofNCompleteColumn(),)
        console = RichConsole(stderr=True)
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *counts,
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal or console.is_dumb_terminal,
        )
