"""What the operating system leaves to this process: memory, processors and room on the disk.

On Linux, a control group and each of its parents may have limits: those of containers, systemd services and
Slurm jobs. Version 1 has a tree for each resource, version 2 has one tree for all, and both may exist.
"""

import math
import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path

from metal_gen.byte_sizes import format_bytes
from metal_gen.errors import DoesNotFitError

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
# Address space in addition to arrays: stacks and heaps of threads, and libraries that are loaded later.
BESIDE_ARRAYS_BYTES = 512 << 20
PURGEABLE = (
    "; Finder also counts purgeable space, such as local snapshots of Time Machine, which macOS frees later, "
    "and `tmutil thinlocalsnapshots / 100000000000 4` now"
)


def host_memory_bytes() -> int:
    """Return the memory that arrays on the CPU can still take, in bytes; 0 if unknown."""
    limits = [limit for limit in (_meminfo_available_bytes(), *_memory_left_in_groups()) if limit is not None]
    if (left := _address_space_left()) is not None:
        limits.append(left - BESIDE_ARRAYS_BYTES)
    if limits:
        return max(1, min(limits))
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def require_address_space() -> None:
    """Refuse to start if MLX could not start its threads, which would end the process without a message.

    Raises:
        DoesNotFitError: The limit on the address space is lower than they need.
    """
    left = _address_space_left()
    if left is not None and left < BESIDE_ARRAYS_BYTES:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        whole, rest, needed = map(format_bytes, (limit, max(0, left), BESIDE_ARRAYS_BYTES))
        raise DoesNotFitError(
            f"the address space of a process is limited to {whole}, of which {rest} are left, but threads "
            f"alone need {needed}",
            "raise the limit: ulimit -v unlimited",
        )


def room_advice(advice: str) -> str:
    """Return advice for a disk without room. On a Mac it explains why Finder shows more than there is."""
    return advice + PURGEABLE if platform.system() == "Darwin" else advice


def control_group_cpus() -> int | None:
    """Return how many processors the control group may keep busy. More threads would only wait.

    Returns:
        At least 1; None if there is no limit.
    """
    limits = [limit for group in _groups("cpu") if (limit := _cpus(group)) is not None]
    return min(limits, default=None)


def _meminfo_available_bytes() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _address_space_left() -> int | None:
    """Return the bytes that may still be mapped, or None if there is no limit or usage is unknown."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return None
    return limit - pages * os.sysconf("SC_PAGE_SIZE")


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the groups that limit this process: its own, and all parents.

    In a container, whose tree may begin at its own group, that is the top of the tree.
    """
    for tree, group in _own_groups(controller):
        parts = [part for part in group.split("/") if part]
        if ".." in parts:  # The group is outside the visible tree.
            parts = []
        for length in range(len(parts), -1, -1):
            yield tree.joinpath(*parts[:length])


def _own_groups(controller: str) -> Iterator[tuple[Path, str]]:
    """Yield the trees with this controller, and this process's group in each."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            trees = [GROUPS, GROUPS / "unified"]
        elif controller in controllers.split(","):
            trees = [GROUPS / name for name in {controllers, controller}]
        else:
            continue
        for tree in trees:
            yield tree, group


def _memory_left_in_groups() -> list[int]:
    return [left for group in _groups("memory") if (left := _memory_left(group)) is not None]


def _memory_left(group: Path) -> int | None:
    """Return what a group may still take. Recently read files count as used, but are evicted."""
    for limit_file, used_file, inactive in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit, used = (_number(group / name) for name in (limit_file, used_file))
            statistics = dict(line.split() for line in _text(group / "memory.stat").splitlines())
            return max(0, limit - used + int(statistics.get(inactive, 0)))
        except (OSError, ValueError):
            continue
    return None


def _cpus(group: Path) -> int | None:
    try:
        quota, period = map(int, _text(group / "cpu.max").split())
    except (OSError, ValueError):
        try:
            quota, period = (_number(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        except (OSError, ValueError):
            return None
    return max(1, math.ceil(quota / period)) if quota > 0 and period > 0 else None


def _number(file: Path) -> int:
    return int(_text(file))


def _text(file: Path) -> str:
    return file.read_text(encoding="ascii")
