"""How far a download is: what the terminal is told, and the sum over the files in flight.

Owns the counting. Draws nothing, and knows nothing of the Hub or of huggingface_hub.
"""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class DownloadProgress:
    """The state of a download at one moment; what was on the disk before counts as done."""

    done_bytes: int
    total_bytes: int
    files_done: int
    files_total: int


ProgressCallback = Callable[[DownloadProgress], None]


class DownloadCancelledError(Exception):
    """Ends the threads of a download whose caller has gone; never reaches the caller."""


class ProgressMeter:
    """Adds up what the threads of a download count, and reports each change, one call at a time.

    Args:
        on_progress: Told of every change; None to count in silence.
        total_bytes: The size of all the files, those on the disk included.
        files_total: Their number.
    """

    def __init__(self, on_progress: ProgressCallback | None, total_bytes: int, files_total: int) -> None:
        self._on_progress = on_progress
        self._total_bytes = total_bytes
        self._files_total = files_total
        self._lock = threading.Lock()
        self._cancelled = False
        self._bytes_before = 0
        self._files_before = 0
        self._bytes: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._files = 0

    def begin_stage(self, bytes_before: int, files_before: int) -> None:
        """Start counting anew on top of what is on the disk by now."""
        with self._lock:
            self._bytes_before = bytes_before
            self._files_before = files_before
            self._bytes.clear()
            self._files = 0
            self._report()

    @property
    def counted_bytes(self) -> int:
        """What was counted since the stage began."""
        with self._lock:
            return self._sum()

    def add_bytes(self, file: str, counter: int, amount: int) -> None:
        """Count bytes of a file; of several counters for one, the one furthest on is believed."""
        with self._lock:
            self._bytes[file][counter] += amount
            self._report()

    def add_files(self, amount: int) -> None:
        """Count files that are whole."""
        with self._lock:
            self._files += amount
            self._report()

    def cancel(self) -> None:
        """Make the next count in any thread raise, so that the threads end."""
        self._cancelled = True

    def _report(self) -> None:
        if self._cancelled:
            raise DownloadCancelledError
        if self._on_progress is None:
            return
        done_bytes = self._bytes_before + self._sum()
        self._on_progress(
            DownloadProgress(
                done_bytes=done_bytes,
                total_bytes=max(done_bytes, self._total_bytes),  # the Hub does not say every size
                files_done=min(self._files_before + self._files, self._files_total),
                files_total=self._files_total,
            )
        )

    def _sum(self) -> int:
        return sum(max(counters.values()) for counters in self._bytes.values())
