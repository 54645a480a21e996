"""Resolves paths, and explains why a file cannot be written."""

import errno
import os
import platform
import shlex
from pathlib import Path

# `_PC_CASE_SENSITIVE` of macOS, for which Python has no name.
CASE_SENSITIVE = 11
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def resolve(path: Path) -> Path:
    """Follow the links in a path. Its last parts need not exist.

    Raises:
        OSError: Links form a circle, the working folder is gone, or no file can have such a name.
    """
    try:
        resolved = path.resolve()
        # Newer Python versions return a link in a circle unchanged.
        if resolved.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    except RuntimeError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    return resolved


def one_spelling(path: Path) -> Path:
    """Return the same path for all spellings of a file that does not exist yet.

    On most disks of Macs, upper and lower case and the forms of accents do not tell files apart.
    """
    if not _ignores_case(path.parent):
        return path
    from unicodedata import normalize

    return Path(normalize("NFC", str(path)).casefold())


def _ignores_case(folder: Path) -> bool:
    """Return whether the disk of a folder takes `A` and `a` for one file. Only macOS can say."""
    if platform.system() != "Darwin":
        return False
    try:
        return os.pathconf(folder, CASE_SENSITIVE) == 0
    except (OSError, ValueError):
        return False


def why_not_written(error: OSError, path: Path) -> tuple[str, str]:
    """Explain why a file cannot be written.

    Args:
        error: Error that was raised.
        path: Path as the user gave it.

    Returns:
        A reason, to follow a colon, and a hint.
    """
    if isinstance(error, FileNotFoundError):
        if not path.is_absolute() and _working_folder_is_gone():
            return "the working folder is gone", "cd into a folder that exists"
        if not path.parent.exists():
            folder = shlex.quote(str(path.parent))
            return f"there is no folder {path.parent}", f"create it with: mkdir -p {folder}"
    reason = error.strerror or str(error)
    if error.errno == errno.ELOOP:
        return reason, "name another file: this link leads back to itself"
    if isinstance(error, IsADirectoryError):
        return "it is a folder", "name a file in it"
    if error.errno in FULL:
        return reason, "make room, or name a file on another disk"
    return reason, "name a file in a folder that you can write to"


def _working_folder_is_gone() -> bool:
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        return True
    return False
