"""Permissions and owner of a new file, or of one that replaces another."""

import os
import stat

PERMISSIONS = 0o777
ALL_MAY = 0o666
OWNER_MAY = 0o600
ALL_BUT_GROUP = 0o707


def take_mode(descriptor: int, old: os.stat_result | None, *, private: bool) -> None:
    """Give a file the mode and the owner of the file that it replaces, or those of a new one.

    Args:
        descriptor: Descriptor of the file.
        old: Status of the file that it replaces; None for a new file.
        private: Whether only the owner may read a new file.

    Raises:
        OSError: They cannot be set.
    """
    if old is None:
        os.fchmod(descriptor, OWNER_MAY if private else ALL_MAY & ~umask())
        return
    mode = stat.S_IMODE(old.st_mode) & PERMISSIONS
    new = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(descriptor, old.st_uid if os.geteuid() == 0 else -1, old.st_gid)
        except OSError:
            # The old group's permissions are not meant for another group.
            mode &= ALL_BUT_GROUP
    os.fchmod(descriptor, mode)


def umask() -> int:
    """Return this process's umask."""
    # It can only be read by setting it: to the strictest, in case another thread makes a file meanwhile.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
