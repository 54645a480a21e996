"""Paths that stand for something that is open already: `/dev/stdout`, `/dev/fd/3`, a link to one of them."""

import errno
import fcntl
import os
from pathlib import Path

FOLDERS = ("/dev/fd", "/proc/self/fd")
# As many as Linux follows.
MOST_LINKS = 40


def descriptor_named(path: Path) -> int | None:
    """The descriptor that a path stands for; None where it names a file of its own.

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
    """A descriptor that writes into what a path stands for, where nothing can be put in its place.

    What is open already is written to where it stands, a FIFO or a device from its beginning. A FIFO waits
    for its reader.

    Returns:
        None for a file or a folder, or where there is nothing yet.

    Raises:
        OSError: It cannot be written to.
    """
    descriptor = descriptor_named(path)
    if descriptor is not None:
        _require_writable(descriptor)
        return os.dup(descriptor)
    return os.open(path, os.O_WRONLY | os.O_NOCTTY) if is_stream(path) else None


def is_stream(path: Path) -> bool:
    """Return whether a path can only be written to: what is open already, a FIFO or a device.

    Raises:
        OSError: It cannot be looked at.
    """
    if descriptor_named(path) is not None:
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def _require_writable(descriptor: int) -> None:
    """Refuse one that is only read, or that this process has opened for itself."""
    try:
        is_ours = not os.get_inheritable(descriptor)
        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError):
        is_ours, access = True, os.O_RDONLY
    if is_ours or access == os.O_RDONLY:
        raise OSError(errno.EBADF, "it is not open for writing")
