"""A file that is there whole or not at all, whatever ends the process."""

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
    """Written beside its place, and put there by `commit`; given up otherwise.

    Used in a `with`, it is given up at its end unless it has been put in its place. Until then nobody
    else can read it. A file that was there keeps its mode, and its owner where that can be; a new one
    gets what the umask leaves. What a run has left that was killed is taken away by the next one.

    Args:
        path: Of the file; an older one stays as it is until `commit`.
        private: A new file can be read by its owner alone.
        follows_link: Of a link, what it points to is replaced; otherwise the link itself is, as befits a
            name that nobody has given.

    Attributes:
        path: Of the file; of a link, where it points to.

    Raises:
        OSError: It cannot be written: no folder, a folder or device there, a file that is read-only, a
            circle of links, a name that no file can have.
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

    def write(self, content: bytes) -> None:
        """Add to it.

        Raises:
            OSError: It cannot be written; it is given up, and an older file is as before.
        """
        try:
            self._file.write(content)
        except BaseException:
            self.discard()
            raise

    def sync(self) -> None:
        """Have what was written so far on the disk, while an older file still is where it was.

        Raises:
            OSError: It is not there; it is given up.
        """
        try:
            self._file.flush()
            sync_file(self._file.fileno())
        except BaseException:
            self.discard()
            raise

    def commit(self) -> None:
        """Put it in its place, on the disk.

        Raises:
            OSError: It cannot be written; it is given up, and an older file is as before.
        """
        try:
            self._file.flush()
            descriptor = self._file.fileno()
            old = _status(self.path)
            take_mode(descriptor, None if _is_link(old) else old, private=self._private)
            sync_file(descriptor)
            if not has_name(descriptor, self._part):
                raise FileNotFoundError(errno.ENOENT, f"{self._part} was taken away meanwhile")
            self._part.replace(self.path)
        except BaseException:
            self.discard()
            raise
        self._file.close()
        sync_folder(self.path.parent)

    def discard(self) -> None:
        """Leave nothing behind of what was not put in its place; what was, stays."""
        if self._file.closed:
            return
        with suppress(OSError):
            if has_name(self._file.fileno(), self._part):
                self._part.unlink()
        # Closing writes what is left in memory, which may fail once more.
        with suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.discard()


def write_whole(path: Path, content: bytes, *, private: bool = False, follows_link: bool = True) -> None:
    """Write a file whole, or leave what is there as it is; as `WholeFile` does.

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
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only", str(path))
