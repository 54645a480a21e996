"""The only place that syncs data to the disk itself."""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

# Only on macOS, where `fsync` leaves data in the disk's own cache, which a power failure empties.
FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
# Errors of file systems that do not support it.
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.ENODEV)

# Seconds between syncs of a file that grows, unless another number is given.
FSYNC_INTERVAL_S = 5.0


def sync_file(descriptor: int) -> None:
    """Sync everything written to a file to the disk.

    Raises:
        OSError: The sync failed.
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
    """Sync the names in a folder to the disk, if the system supports that.

    Raises:
        OSError: The sync failed.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # A folder that one may write to but not read.
    try:
        sync_file(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        with suppress(OSError):
            os.close(descriptor)
