"""Progress bars on a terminal's stderr; none in a log.

A bar appears when work has taken a moment, even before any progress: a thread draws it, because the work may
be one long step.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock, Timer
from types import TracebackType
from typing import TYPE_CHECKING, Self

from metal_gen.cli.terminal.console import Console
from metal_gen.control_characters import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_S = 0.5
LOADING = "loading the model"


class ProgressBar:
    """A bar that appears if work takes a moment, and disappears when it ends.

    Args:
        console: The console of the run.
        description: The work in progress.
        total: Amount of work; None if it is unknown, or nothing is counted.
        is_bytes: Count bytes, with their rate, instead of tokens.
    """

    def __init__(
        self, console: Console, description: str, *, total: int | None = None, is_bytes: bool = False
    ) -> None:
        self._console = console
        self._wanted = console.draws_bars
        self._description = description
        self._is_bytes = is_bytes
        self._done, self._total = 0, total
        self._start_s = time.perf_counter()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        # Taken by the thread that draws and by the one that works.
        self._lock = RLock()
        if self._wanted:
            self._timer = Timer(PATIENCE_S, self._appear)
            self._timer.daemon = True
            self._timer.start()

    def update(self, done: int, total: int | None) -> None:
        """Show the progress; without a total, only the amount done."""
        if not self._wanted:
            return
        with self._lock:
            if (total is None) != (self._total is None):
                self._erase()
            self._done, self._total = done, total
            if time.perf_counter() - self._start_s >= PATIENCE_S:
                self._draw()

    def close(self) -> None:
        """Remove the bar from the screen."""
        if not self._wanted:
            return
        self._wanted = False
        self._timer.cancel()
        with self._lock:
            self._erase()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bar while a message is written."""
        with self._lock:
            is_drawn = self._progress is not None
            self._erase()
            try:
                yield
            finally:
                if is_drawn and self._wanted:
                    self._draw()

    def _appear(self) -> None:
        with self._lock:
            if self._wanted:
                self._draw()

    def _draw(self) -> None:
        if self._progress is None:
            from metal_gen.cli.terminal.progress_columns import make_progress

            self._console.end_text()
            self._progress = make_progress(is_bytes=self._is_bytes, has_total=self._total is not None)
            self._task = self._progress.add_task(visible(self._description), total=self._total)
            self._console.bar = self
            Console.on_screen = self._console
            self._progress.start()
        if self._task is not None:
            self._progress.update(self._task, completed=self._done, total=self._total)

    def _erase(self) -> None:
        if self._progress is not None:
            self._console.bar = None
            progress, self._progress = self._progress, None
            progress.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PhaseBar:
    """The bar of the current phase.

    Args:
        console: As for `ProgressBar`.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._bar: ProgressBar | None = None

    def begin(self, phase: str, total: int | None = None) -> None:
        """Begin a phase without progress; removes the bar of the previous one."""
        self.close()
        self._phase, self._bar = phase, ProgressBar(self._console, phase, total=total)

    def update(self, phase: str, done: int, total: int | None) -> None:
        """Show the progress of a phase; begins the phase if it is not the current one."""
        if self._bar is None or phase != self._phase:
            self.begin(phase, total)
        if self._bar is not None:
            self._bar.update(done, total)

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
