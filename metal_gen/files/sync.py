"""The one place where data reaches the disk itself, not only the memory in front of it."""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

# On macOS alone: `fsync` leaves the data in the disk's own memory there, which a power failure empties.
FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
# What a file system answers that has no such thing.
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.ENODEV)


def sync_file(descriptor: int) -> None:
    """Have everything that was written to a file on the disk.

    Raises:
        OSError: It is not there.
    """
    if FULL_SYNC is not None:
        try:
            fcntl.fcntl(descriptor, FULL_SYNC)
            return
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that for a folder.

    Raises:
        OSError: They are not there.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # A folder that one may write to and not read.
    try:
        sync_file(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        with suppress(OSError):
            os.close(descriptor)
