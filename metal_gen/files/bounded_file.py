"""Reads a file of bounded size to its end."""

import errno
import os
import stat
from pathlib import Path

from metal_gen.byte_sizes import format_bytes


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of a regular file.

    What is no regular file is refused before it is read: a device has no end, and a pipe may never begin.

    Raises:
        OSError: It is missing, unreadable, no regular file, or larger than allowed; its `strerror` says so.
    """
    try:
        # O_NONBLOCK: to open a pipe would wait for somebody who writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # NUL, or half of a surrogate pair
        raise OSError(errno.EINVAL, "No file can have this name", str(path)) from None
    with open(descriptor, "rb") as file:  # noqa: PTH123  # Path.open opens no descriptor
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        data = file.read(most_bytes + 1) if status.st_size <= most_bytes else None
    if data is None or len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"File of more than {format_bytes(most_bytes)}", str(path))
    return data
