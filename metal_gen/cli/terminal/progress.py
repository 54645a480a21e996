"""Progress bars on a terminal's stderr; nothing at all in a log."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from metal_gen.cli.terminal.console import Console
from metal_gen.control_characters import visible

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
            from metal_gen.cli.terminal.progress_columns import make_progress

            self._console.end_text()
            self._progress = make_progress(is_bytes=self._is_bytes, has_total=total is not None)
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
