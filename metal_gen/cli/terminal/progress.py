"""Progress bars on a terminal's stderr; nothing at all in a log.

A bar appears when work has lasted for a moment, whether or not anything of it is done by then: a thread
draws it, for the work itself may be one long step.
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
    """A bar that appears when work lasts, and is gone when it ends.

    Args:
        console: Says whether there is a terminal to draw on.
        description: What is going on.
        total: How much there is to do; None where that is not known, or nothing is counted.
        is_bytes: Count bytes, with their rate, rather than tokens.
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
        # The thread that draws and the one that works take turns.
        self._lock = RLock()
        if self._wanted:
            self._timer = Timer(PATIENCE_S, self._appear)
            self._timer.daemon = True
            self._timer.start()

    def update(self, done: int, total: int | None) -> None:
        """Show how far the work is; without a total, only how much has been done."""
        if not self._wanted:
            return
        with self._lock:
            if (total is None) != (self._total is None):
                self._erase()
            self._done, self._total = done, total
            if time.perf_counter() - self._start_s >= PATIENCE_S:
                self._draw()

    def close(self) -> None:
        """Take the bar off the screen."""
        if not self._wanted:
            return
        self._wanted = False
        self._timer.cancel()
        with self._lock:
            self._erase()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Leave the screen to a message."""
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
    """The bar of whatever is going on at the time.

    Args:
        console: As of `ProgressBar`.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._bar: ProgressBar | None = None

    def begin(self, phase: str, total: int | None = None) -> None:
        """Begin a phase of which nothing is done yet; a bar that is there is taken off the screen."""
        self.close()
        self._phase, self._bar = phase, ProgressBar(self._console, phase, total=total)

    def update(self, phase: str, done: int, total: int | None) -> None:
        """Show how far a phase is; the first of another one begins it."""
        if self._bar is None or phase != self._phase:
            self.begin(phase, total)
        if self._bar is not None:
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
