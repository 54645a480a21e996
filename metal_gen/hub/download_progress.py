"""Progress of a download, summed over the files being transferred.

Only counts: draws nothing, and does not know the Hub or huggingface_hub.
"""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class DownloadProgress:
    """Progress of a download at one moment; files already on disk count as done."""

    done_bytes: int
    total_bytes: int
    files_done: int
    files_total: int


ProgressCallback = Callable[[DownloadProgress], None]


class DownloadCancelledError(Exception):
    """Ends the threads of a download whose caller has stopped; never reaches the caller."""


class ProgressMeter:
    """Sums the counts of a download's threads, and reports each change, one call at a time.

    Args:
        on_progress: Called after every change; None to count only.
        total_bytes: Total size of all files, including those on disk.
        files_total: Number of files.
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
        """Reset the counts; files on disk by now are given as the new base."""
        with self._lock:
            self._bytes_before = bytes_before
            self._files_before = files_before
            self._bytes.clear()
            self._files = 0
            self._report()

    @property
    def counted_bytes(self) -> int:
        """Bytes counted since the stage began."""
        with self._lock:
            return self._sum()

    def add_bytes(self, file: str, counter: int, amount: int) -> None:
        """Add bytes to a file's counter; a file with several counters counts as the highest one."""
        with self._lock:
            self._bytes[file][counter] += amount
            self._report()

    def add_files(self, amount: int) -> None:
        """Add complete files."""
        with self._lock:
            self._files += amount
            self._report()

    def cancel(self) -> None:
        """Make the next count in any thread raise, which ends the thread."""
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
                total_bytes=max(done_bytes, self._total_bytes),  # the Hub does not give every size
                files_done=min(self._files_before + self._files, self._files_total),
                files_total=self._files_total,
            )
        )

    def _sum(self) -> int:
        return sum(max(counters.values()) for counters in self._bytes.values())
