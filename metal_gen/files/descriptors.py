"""Paths that stand for an open descriptor: `/dev/stdout`, `/dev/fd/3`, or a link to one of them."""

import errno
import fcntl
import os
from pathlib import Path

FOLDERS = ("/dev/fd", "/proc/self/fd")
# The same limit as Linux's.
MOST_LINKS = 40


def descriptor_named(path: Path) -> int | None:
    """Return the descriptor that a path stands for, or None if it names a file of its own.

    Raises:
        OSError: A link on the way cannot be read.
    """
    folders = {place for folder in FOLDERS for place in (folder, os.path.realpath(folder))}
    try:
        for _ in range(MOST_LINKS):
            if path.name.isdecimal() and os.path.realpath(path.parent) in folders:
                return int(path.name)
            if not path.is_symlink():
                return None
            path = path.parent / path.readlink()
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    return None


def open_for_writing(path: Path) -> int | None:
    """Open a path for writing if it cannot be replaced by a file.

    An open descriptor is written to at its current position, and a FIFO or a device from its beginning. A
    FIFO waits for its reader.

    Returns:
        A descriptor; None for a file, a folder, or a path that does not exist.

    Raises:
        OSError: The path cannot be written to.
    """
    descriptor = descriptor_named(path)
    if descriptor is not None:
        _require_writable(descriptor)
        return os.dup(descriptor)
    return os.open(path, os.O_WRONLY | os.O_NOCTTY) if is_stream(path) else None


def is_stream(path: Path) -> bool:
    """Return whether a path can only be written to: an open descriptor, a FIFO or a device.

    Raises:
        OSError: The path cannot be examined.
    """
    if descriptor_named(path) is not None:
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def _require_writable(descriptor: int) -> None:
    """Refuse a descriptor that is read-only, or that this process has opened for itself."""
    try:
        is_ours = not os.get_inheritable(descriptor)
        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError):
        is_ours, access = True, os.O_RDONLY
    if is_ours or access == os.O_RDONLY:
        raise OSError(errno.EBADF, "it is not open for writing")
