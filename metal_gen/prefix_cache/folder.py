"""The folder of stored prefixes: paths of entries, total size, and removal of the oldest.

Only its user can access the folder. Readers need no lock, because an entry appears whole under its name. Only
files that the cache itself has named are listed, counted and removed: the folder may have others.
"""

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from metal_gen.byte_sizes import format_bytes
from metal_gen.config.settings import Settings
from metal_gen.errors import ConfigError
from metal_gen.files.bounded_file import read_bounded
from metal_gen.files.kept_file import cache_folder
from metal_gen.files.modes import OWNER_MAY

SUFFIX = ".safetensors"
# The ending of a small file that names a longer entry, which holds a shorter prefix.
ALIAS = ".in"
MOST_ALIAS_BYTES = 100
LOCK = ".lock"
# A hash, as it names the folder of a model and an entry.
HASH = re.compile(r"[0-9a-f]{32}")
# Above the limit, entries are removed down to this share of it, so that the next entry still fits.
KEPT_SHARE = 0.9
# Free bytes that an entry must leave on the disk.
DISK_FLOOR_BYTES = 4 * 2**30
OWNER_ALONE = 0o700
DIR_HINT = "name another folder with dir under [prefix_cache]"
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class EntryFile:
    """An entry in the folder.

    Attributes:
        path: Path of the file.
        nbytes: Size of the file in bytes.
        used_s: Time of the last use, in seconds since 1970.
    """

    path: Path
    nbytes: int
    used_s: float

    @property
    def name(self) -> str:
        """Name of the entry for users: the beginning of its hash."""
        return self.path.name.removesuffix(SUFFIX)[:12]


def folder_of(settings: Settings) -> "PrefixFolder":
    """Return the folder that settings name: by default `$XDG_CACHE_HOME/metal-gen/prefixes`.

    Raises:
        ConfigError: It is in the home folder, and there is none.
    """
    own = cache_folder() or Path("~/.cache/metal-gen")
    path = Path(settings.prefix_cache_dir or own / "prefixes")
    try:
        return PrefixFolder(path.expanduser(), settings.prefix_cache_max_bytes)
    except RuntimeError:
        raise ConfigError(f"the prefix cache has no folder: there is no home for {path}", DIR_HINT) from None


class PrefixFolder:
    """The stored prefixes of all models.

    Args:
        path: Path of the folder.
        max_bytes: Maximum total size of the entries in bytes.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes

    def prepare(self, model_key: str) -> Path:
        """Create the folder of a model, accessible only to its user.

        The folder of all models can be a link of the user, for example to another disk.

        Raises:
            ConfigError: It cannot be made, or is not the user's alone.
        """
        folder = self.path / model_key
        try:
            self.path.mkdir(mode=OWNER_ALONE, parents=True, exist_ok=True)
            folder.mkdir(mode=OWNER_ALONE, exist_ok=True)
            statuses = [self.path.lstat(), self.path.stat(), folder.lstat()]
            if any(status.st_uid != os.geteuid() for status in statuses) or folder.is_symlink():
                raise ConfigError(f"the prefix cache is not a folder of yours: {self.path}", DIR_HINT)
            if statuses[1].st_mode & OTHERS_MAY_WRITE:
                raise ConfigError(
                    f"others may write to the folder of the prefix cache: {self.path}",
                    f"chmod go-w {self.path}",
                )
            if stat.S_IMODE(statuses[2].st_mode) & ~OWNER_ALONE:
                folder.chmod(OWNER_ALONE)
        except OSError as error:
            raise ConfigError(
                f"cannot use the prefix cache: {error.strerror}: {self.path}", DIR_HINT
            ) from None
        except ValueError as error:
            raise ConfigError(f"cannot use the prefix cache: {error}", DIR_HINT) from None
        return folder

    def entries(self) -> list[EntryFile]:
        """List all entries, the most recently used first."""
        found = []
        for folder in self._folders():
            with suppress(OSError), os.scandir(folder) as files:
                for file in files:
                    if not (file.name.endswith(SUFFIX) and HASH.fullmatch(file.name.removesuffix(SUFFIX))):
                        continue
                    with suppress(OSError):
                        status = file.stat(follow_symlinks=False)
                        found.append(EntryFile(Path(file.path), status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: entry.used_s, reverse=True)

    def _folders(self) -> list[Path]:
        """Return the folders of models."""
        with suppress(OSError), os.scandir(self.path) as folders:
            return [
                Path(folder.path)
                for folder in folders
                if HASH.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)
            ]
        return []

    def remove(self, entries: Sequence[EntryFile]) -> list[EntryFile]:
        """Remove entries, and the names of shorter prefixes in them.

        Returns:
            The entries that could be removed.
        """
        removed = []
        for entry in entries:
            with suppress(OSError):
                entry.path.unlink()
                removed.append(entry)
        for folder in {entry.path.parent for entry in removed}:
            _clear_aliases(folder)
        return removed

    def remove_notes(self) -> None:
        """Remove what is known of earlier prompts, and everything else in the folders of models."""
        for folder in self._folders():
            shutil.rmtree(folder, ignore_errors=True)

    def named(self, name: str) -> list[EntryFile]:
        """Return the entries whose hash begins with a name."""
        return [entry for entry in self.entries() if name and entry.path.name.startswith(name)]

    def require_room(self, nbytes: int) -> None:
        """Check that an entry of this size may be written.

        Raises:
            ConfigError: It is too large, or the disk is almost full.
            OSError: The folder cannot be read.
        """
        largest = int(KEPT_SHARE * self.max_bytes)
        if nbytes > largest:
            raise ConfigError(
                f"the prefix cache is too small for this prompt: it takes {format_bytes(nbytes)}, "
                f"max_bytes leaves {format_bytes(largest)}"
            )
        if shutil.disk_usage(self.path).free - nbytes < DISK_FLOOR_BYTES:
            floor = format_bytes(DISK_FLOOR_BYTES)
            raise ConfigError(
                f"nothing is stored in the prefix cache: its disk would have less than {floor} free"
            )

    def shrink(self) -> list[EntryFile]:
        """Remove the least recently used entries if the total size exceeds the limit.

        Returns:
            The removed entries.
        """
        with self._locked() as is_ours:
            entries = self.entries()
            size = sum(entry.nbytes for entry in entries)
            if not is_ours or size <= self.max_bytes:
                return []
            oldest = []
            while entries and size > KEPT_SHARE * self.max_bytes:
                oldest.append(entries.pop())
                size -= oldest[-1].nbytes
            return self.remove(oldest)

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock for removing; yield False if another process holds it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path / LOCK, flags, OWNER_MAY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)


def _clear_aliases(folder: Path) -> None:
    """Remove names of shorter prefixes whose entries are gone."""
    with suppress(OSError), os.scandir(folder) as files:
        for file in files:
            if file.name.endswith(ALIAS) and aliased(Path(file.path)) is None:
                with suppress(OSError):
                    Path(file.path).unlink()


def aliased(alias: Path) -> Path | None:
    """Return the entry that a small file names; None if there is none."""
    with suppress(OSError, ValueError):
        name = read_bounded(alias, MOST_ALIAS_BYTES).decode()
        if HASH.fullmatch(name.removesuffix(SUFFIX)) and os.path.lexists(alias.with_name(name)):
            return alias.with_name(name)
    return None
