"""Finds how much memory other programs on a Mac leave. Metal's recommended working set ignores them."""

import re
import subprocess

COMMAND = "/usr/bin/vm_stat"
# Pages that macOS can give to a program without writing to the disk.
UNUSED = ("Pages free", "Pages inactive", "Pages purgeable", "Pages speculative")
PATIENCE_S = 5


def unused_memory_bytes() -> int | None:
    """Return the bytes that no program uses or has used lately; None if `vm_stat` does not say."""
    try:
        done = subprocess.run(
            [COMMAND], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return read_vm_stat(done.stdout.decode(errors="replace"))


def read_vm_stat(text: str) -> int | None:
    """Return the same from the output of `vm_stat`; None if that has another format."""
    page = re.search(r"page size of (\d+) bytes", text)
    counts = {name: int(count) for name, count in re.findall(r"^([^:\n]+):\s+(\d+)\.?$", text, re.M)}
    if page is None or "Pages free" not in counts:
        return None
    return int(page[1]) * sum(counts.get(name, 0) for name in UNUSED)
