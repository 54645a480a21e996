"""A file that appears completely or not at all, whatever ends the process."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Self

from metal_gen.files.modes import OWNER_MAY, take_mode
from metal_gen.files.parts import has_name, hold_part, part_path, remove_dead_parts
from metal_gen.files.paths import resolve
from metal_gen.files.sync import sync_file, sync_folder


class WholeFile:
    """A file that is written next to its target, and moved there by `commit`.

    Used in a `with` statement, it is discarded at the end unless it was committed. Until then, nobody else
    can read it. An existing file keeps its mode, and its owner if possible. A new file gets the mode that
    the umask leaves. The next run removes what a killed run left behind.

    Args:
        path: Path of the file; an existing file stays unchanged until `commit`.
        private: Whether only the owner may read a new file.
        follows_link: Replace the target of a link; otherwise replace the link itself, as is right for a
            name that no user gave.

    Attributes:
        path: Path of the file, or the target of the link.

    Raises:
        OSError: The file cannot be written: there is no folder, the path is a folder or a device, the file is
            read-only, links form a circle, or no file can have such a name.
    """

    def __init__(self, path: Path, *, private: bool = False, follows_link: bool = True) -> None:
        self.path = resolve(path) if follows_link and _is_link(_status(path)) else path
        self._private = private
        _require_replaceable(self.path)
        remove_dead_parts(self.path)
        while True:
            self._part = part_path(self.path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(self._part, flags, OWNER_MAY)
            if hold_part(descriptor, self._part):
                break
            os.close(descriptor)
        self._file = open(descriptor, "wb")  # noqa: SIM115, PTH123

    def write(self, content: bytes | memoryview) -> None:
        """Append content.

        Raises:
            OSError: It cannot be written. The new file is discarded, and an existing file is unchanged.
        """
        try:
            self._file.write(content)
        except BaseException:
            self.discard()
            raise

    def sync(self) -> None:
        """Sync the content so far to the disk, while an existing file stays in place.

        Raises:
            OSError: The sync failed. The new file is discarded.
        """
        try:
            self._file.flush()
            sync_file(self._file.fileno())
        except BaseException:
            self.discard()
            raise

    def commit(self) -> None:
        """Sync the file to the disk and move it to its target.

        Raises:
            OSError: It cannot be written. The new file is discarded, and an existing file is unchanged.
        """
        try:
            self._file.flush()
            descriptor = self._file.fileno()
            old = _status(self.path)
            take_mode(descriptor, None if _is_link(old) else old, private=self._private)
            sync_file(descriptor)
            if not has_name(descriptor, self._part):
                raise FileNotFoundError(errno.ENOENT, f"{self._part} was removed meanwhile")
            self._part.replace(self.path)
        except BaseException:
            self.discard()
            raise
        self._file.close()
        sync_folder(self.path.parent)

    def discard(self) -> None:
        """Remove a file that was not committed. A committed file stays."""
        if self._file.closed:
            return
        with suppress(OSError):
            if has_name(self._file.fileno(), self._part):
                self._part.unlink()
        # Closing writes buffered content, which may fail again.
        with suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.discard()


def write_whole(path: Path, content: bytes, *, private: bool = False, follows_link: bool = True) -> None:
    """Write a whole file, or leave the existing one unchanged, as `WholeFile` does.

    Raises:
        OSError: It cannot be written.
    """
    with WholeFile(path, private=private, follows_link=follows_link) as file:
        file.write(content)
        file.commit()


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from None


def _is_link(status: os.stat_result | None) -> bool:
    return status is not None and stat.S_ISLNK(status.st_mode)


def _require_replaceable(path: Path) -> None:
    status = _status(path)
    if status is None or stat.S_ISLNK(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))

    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only", str(path))
