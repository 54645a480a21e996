"""Parts: files that are written next to their target until they are complete, and what killed writers leave.

The unpredictable name keeps others from planting a link there. A lock, which the system releases when the
process ends, distinguishes the part of an active writer from one that was left behind.
"""

import fcntl
import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path

TOKEN_BYTES = 8
# Ending after the stem of a name. The stem is shortened, so that the longest possible name can have a part.
ENDING = re.compile(rf"\.[0-9a-f]{{{2 * TOKEN_BYTES}}}\.part")
LONGEST_STEM_BYTES = 100


def part_path(path: Path) -> Path:
    """Return an unpredictable name next to a path."""
    return path.parent / f"{_stem(path)}.{os.urandom(TOKEN_BYTES).hex()}.part"


def hold_part(descriptor: int, part: Path) -> bool:
    """Mark a new part as that of an active writer, until its descriptor is closed.

    Returns:
        False if another run has just taken it for the part of a dead writer.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # This file system has no locks, so no parts are removed there.
    return has_name(descriptor, part)


def has_name(descriptor: int, path: Path) -> bool:
    """Return whether a name still belongs to the open file. A link is never that file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def remove_dead_parts(path: Path) -> None:
    """Remove the parts that killed writers of the same path left behind."""
    stem = _stem(path)
    # Parts that cannot be removed stay. Nothing depends on their removal.
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(stem) and ENDING.fullmatch(entry.name, len(stem)):
                with suppress(OSError):
                    _remove_if_dead(Path(entry.path))


def remove_all_dead_parts(folder: Path) -> None:
    """Delete what killed writers of any path in a folder left behind, as far as possible."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if ENDING.search(entry.name) and entry.name.endswith(".part"):
                with suppress(OSError):
                    _remove_if_dead(Path(entry.path))


def _remove_if_dead(part: Path) -> None:
    is_folder = stat.S_ISDIR(part.lstat().st_mode)
    access = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR
    descriptor = os.open(part, access | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        is_ours = status.st_uid == os.geteuid() and (is_folder or stat.S_ISREG(status.st_mode))
        if not is_ours:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not has_name(descriptor, part):
            return
        if is_folder:
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink()
    finally:
        os.close(descriptor)


def _stem(path: Path) -> str:
    cut = os.fsencode(path.name)[:LONGEST_STEM_BYTES]
    return f".{cut.decode(errors='ignore')}"
