"""What a batch says on its way: a bar on a terminal, a line now and then in a log, a summary at the end."""

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from metal_gen.cli.output.output_file import OutputFile
from metal_gen.cli.terminal.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from metal_gen.batch.runner import BatchCounts
    from metal_gen.generation.loading import PreparedModel

LOG_INTERVAL_S = 60.0
DRAW_INTERVAL_S = 0.1


class BatchReporter:
    """Shows how far a batch is.

    Args:
        console: Says whether there is a terminal to draw on.
        share_read: How much of the input has been read, 0 to 1; None where that is not known.
    """

    def __init__(self, console: Console, share_read: Callable[[], float] | None) -> None:
        self._console = console
        self._share_read = share_read
        self._begin_s: float | None = None
        self._share_at_begin = 0.0
        self._latest: BatchCounts | None = None
        self._interval_s = DRAW_INTERVAL_S if console.draws_bars else LOG_INTERVAL_S
        self._next_s = time.perf_counter() + self._interval_s
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def update(self, counts: "BatchCounts") -> None:
        """Show these counts."""
        self._latest = counts
        if self._begin_s is None:
            self._begin_s = time.perf_counter()
            self._share_at_begin = 0.0 if self._share_read is None else self._share_read()
        if self._console.quiet or time.perf_counter() < self._next_s:
            return
        self._next_s = time.perf_counter() + self._interval_s
        if self._console.draws_bars:
            self._draw(counts)
        else:
            self._console.note(self._progress_line(counts))

    def finish(self, counts: "BatchCounts", seed: int) -> None:
        """Say what has been done."""
        self.close()
        self._console.note(f"{_line(counts)}; {counts.seconds:.1f} s; seed {seed}")

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self.close()
        if kind is not None and self._latest is not None:
            self._console.note(f"stopped: {_line(self._latest)}")

    def _draw(self, counts: "BatchCounts") -> None:
        if self._progress is None:
            from rich.console import Console as RichConsole
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                console=RichConsole(stderr=True),
                transient=True,
            )
            self._task = self._progress.add_task("")
            self._progress.start()
        if self._task is not None:
            self._progress.update(self._task, description=self._progress_line(counts))

    def _progress_line(self, counts: "BatchCounts") -> str:
        line = f"{_line(counts)}, {counts.slots_in_use} of {counts.slots} slots"
        left_s = self._left_s()
        return line if left_s is None else f"{line}, {_duration(left_s)} left"

    def _left_s(self) -> float | None:
        """Seconds still to go, by how fast the input has been read in this run."""
        if self._share_read is None or self._begin_s is None:
            return None
        share = self._share_read()
        read = share - self._share_at_begin
        return (time.perf_counter() - self._begin_s) * (1 - share) / read if read > 0 else None


def write_summary(file: OutputFile, counts: "BatchCounts", prepared: "PreparedModel", seed: int) -> None:
    """Write the summary as one JSON object."""
    from importlib.metadata import version

    import mlx.core as mx

    from metal_gen import __version__

    document = {
        "done": counts.done,
        "failed": counts.failed,
        "done_before": counts.skipped - counts.failed_before,
        "failed_before": counts.failed_before,
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "seconds": counts.seconds,
        "completion_tps": counts.completion_tps,
        "slots": counts.slots,
        "occupancy": counts.occupancy,
        "seed": seed,
        "model": prepared.settings.model,
        "adapters": [adapter.record for adapter in prepared.checkpoint.weights.adapters],
        "quantize": prepared.settings.quantize,
        "dtype": prepared.plan.dtype,
        "max_seq_len": prepared.plan.cache.max_seq_len,
        "planned_memory_bytes": prepared.plan.total_bytes,
        "peak_memory_bytes": mx.get_peak_memory(),
        "metal_gen": __version__,
        "mlx": version("mlx"),
    }
    file.write(json.dumps(document, indent=2) + "\n")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _line(counts: "BatchCounts") -> str:
    rows = "row" if counts.done == 1 else "rows"
    parts = [f"{counts.done} {rows} done", f"{counts.failed} failed"]
    if counts.skipped:
        parts.append(f"{counts.skipped - counts.failed_before} done before")
    if counts.failed_before:
        parts.append(f"{counts.failed_before} failed before (--retry-failed runs them again)")
    return ", ".join(parts) + f"; {counts.completion_tokens} tokens, {counts.completion_tps:.1f} tok/s"
