"""The messages of a batch: its progress, the first failed rows with their reasons, and its result."""

import json
from typing import TYPE_CHECKING, Self

from metal_gen.cli.batch.failures import FailedRows, failure_line
from metal_gen.cli.batch.progress import BatchProgress
from metal_gen.cli.output.output_file import OutputFile
from metal_gen.cli.terminal.console import Console

if TYPE_CHECKING:
    from metal_gen.batch.input.encoding import RowEncoder
    from metal_gen.batch.input.rows import RowError
    from metal_gen.batch.runner import BatchCounts
    from metal_gen.generation.loading import PreparedModel

MOST_SHOWN = 3  # reasons, while the batch runs and at its end


class BatchReporter:
    """Reports a batch while it runs.

    Args:
        console: The console of the run.
        progress: Shows the progress.
        output: Name of the output file; None for standard output, which cannot be resumed.
    """

    def __init__(self, console: Console, progress: BatchProgress, output: str | None) -> None:
        self._console = console
        self._progress = progress
        self._output = output
        self._failed = FailedRows()
        self._reasons = 0
        self._latest: BatchCounts | None = None

    def update(self, counts: "BatchCounts") -> None:
        """Show these counts."""
        self._latest = counts
        self._progress.update(counts)

    def notice(self, message: str) -> None:
        """Show a notice."""
        self._progress.close()
        self._console.warn(message)

    def failure(self, row: "RowError") -> None:
        """Show why a row failed, for the first row with each of the first few reasons."""
        if not self._failed.add(row):
            return
        self._reasons += 1
        if self._reasons <= MOST_SHOWN:
            self.notice(failure_line(row))
        elif self._reasons == MOST_SHOWN + 1:
            says = f"{self._output} says why" if self._output else "their records say why"
            self.notice(f"more rows fail, for other reasons; {says}")

    def finish(self, counts: "BatchCounts", seed: int | None) -> None:
        """Show the result, and the seed if any text was sampled."""
        self._progress.close()
        self._say_how_many_are_alike()
        drawn = "" if seed is None else f"; seed {seed}"
        self._console.note(f"{_line(counts)}; {counts.seconds:.1f} s{drawn}")
        if counts.failed and self._output is not None:
            import shlex

            self._console.warn(
                f"jq -c 'select(.error)' {shlex.quote(self._output)} shows which rows failed, and why",
                "--resume --retry-failed runs them again, as they are or as corrected in the input",
            )

    def _say_how_many_are_alike(self) -> None:
        for alike in self._failed.groups[:MOST_SHOWN]:
            if alike.more:
                rows, lines = alike.more_rows, alike.shown_next
                self._console.warn(f"{rows} failed like line {alike.number}: {lines}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._progress.close()
        if kind is not None and self._latest is not None:
            # An output without records is deleted: the same command starts it again.
            has_records = self._latest.done or self._latest.failed or self._latest.skipped
            advice = "; continue with --resume" if self._output is not None and has_records else ""
            self._say_how_many_are_alike()
            self._console.note(f"stopped: {_line(self._latest)}{advice}")


def report_longest(encoder: "RowEncoder", capacity: int, console: Console) -> None:
    """Report the longest row, and the setting to change if a slot cannot hold it."""
    longest = encoder.longest
    if longest is None:
        return
    limit = "" if longest.max_tokens is None else f" and max_tokens {longest.max_tokens:,}"
    message = (
        f"the longest row is line {longest.number}: a prompt of {longest.prompt_tokens:,} tokens{limit}; "
        f"max_seq_len is {capacity:,}"
    )
    if longest.needed_tokens <= capacity:
        console.note(message)
    elif larger := encoder.capacity_for(longest):
        room = larger - longest.prompt_tokens
        answer = f", with room for {room:,} new tokens" if longest.max_tokens is None else ""
        console.warn(message, f"--max-seq-len {larger} holds it{answer}")
    else:
        console.warn(message, "neither the model nor memory has room for it: shorten it")


def write_summary(file: OutputFile, counts: "BatchCounts", prepared: "PreparedModel", seed: int) -> None:
    """Write the summary as one JSON object."""
    import mlx.core as mx

    from metal_gen import __version__
    from metal_gen.checkpoint.bundled import BUNDLED_NAME
    from metal_gen.device.backend import mlx_version

    document = {
        "done": counts.done,
        "failed": counts.failed,
        "done_before": counts.skipped - counts.failed_before,
        "failed_before": counts.failed_before,
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "cached_tokens": counts.cached_tokens,
        "seconds": counts.seconds,
        "completion_tps": counts.completion_tps,
        "slots": counts.slots,
        "occupancy": counts.occupancy,
        "seed": seed,
        "model": prepared.settings.model or BUNDLED_NAME,
        "adapters": [adapter.record for adapter in prepared.checkpoint.weights.adapters],
        "quantize": prepared.settings.quantize,
        "dtype": prepared.plan.dtype,
        "max_seq_len": prepared.plan.cache.max_seq_len,
        "chunk_size": prepared.plan.chunk_size,
        "planned_memory_bytes": prepared.plan.total_bytes,
        "peak_memory_bytes": mx.get_peak_memory(),
        "metal_gen": __version__,
        "mlx": mlx_version(),
    }
    file.write(json.dumps(document, indent=2) + "\n")


def _line(counts: "BatchCounts") -> str:
    rows = "row" if counts.done == 1 else "rows"
    parts = [f"{counts.done} {rows} done", f"{counts.failed} failed"]
    if counts.skipped:
        parts.append(f"{counts.skipped - counts.failed_before} done before")
    if counts.failed_before:
        parts.append(f"{counts.failed_before} failed before (--retry-failed runs them again)")
    speed = f"; {counts.completion_tokens} tokens, {counts.completion_tps:.1f} tok/s"
    if counts.cached_tokens:
        speed += f"; {counts.cached_tokens} prompt tokens from the prefix cache"
    return ", ".join(parts) + (speed if counts.done or counts.failed else "")
