"""Opens and reads files of unknown size and kind."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from metal_gen.byte_sizes import format_bytes


def open_regular(path: Path) -> tuple[BufferedReader, int]:
    """Open a regular file for reading, and return it with its size in bytes.

    Anything but a regular file is refused before it is read: a device has no end, and a pipe may never begin.

    Raises:
        OSError: The file is missing, unreadable or not a regular file; `strerror` says which.
    """
    try:
        # O_NONBLOCK, because opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # NUL, or an unpaired surrogate
        raise OSError(errno.EINVAL, "No file can have this name", str(path)) from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return open(descriptor, "rb"), status.st_size  # noqa: PTH123  # Path.open takes no descriptor
    os.close(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "Not a regular file", str(path))


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: The file cannot be opened, as for `open_regular`, or is larger than allowed.
    """
    file, size = open_regular(path)
    with file:
        # `read` allocates as many bytes as requested before it reads any.
        data = file.read(size + 1) if size <= most_bytes else b""
        if len(data) > size:  # The file has grown since.
            data += file.read(most_bytes + 1 - len(data))
    if size > most_bytes or len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"File of more than {format_bytes(most_bytes)}", str(path))
    return data
