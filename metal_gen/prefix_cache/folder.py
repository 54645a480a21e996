"""The folder of stored prefixes: paths of entries, total size, and removal of the oldest.

Only its user can access the folder. Readers need no lock, because an entry appears whole under its name.
"""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from metal_gen.config.settings import Settings
from metal_gen.errors import ConfigError
from metal_gen.files.modes import OWNER_MAY

SUFFIX = ".safetensors"
LOCK = ".lock"
DEFAULT_FOLDER = "~/.cache/metal-gen/prefixes"
# Above the limit, entries are removed down to this share of it, so that the next entry still fits.
KEPT_SHARE = 0.9
# Free bytes that an entry must leave on the disk.
DISK_FLOOR_BYTES = 4 * 2**30
OWNER_ALONE = 0o700


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
    """Return the folder for some settings."""
    path = Path(settings.prefix_cache_dir or DEFAULT_FOLDER).expanduser()
    return PrefixFolder(path, settings.prefix_cache_max_bytes)


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

        Raises:
            ConfigError: The folder cannot be created, or belongs to another user.
        """
        folder = self.path / model_key
        for each in (self.path, folder):
            try:
                each.mkdir(mode=OWNER_ALONE, parents=True, exist_ok=True)
                status = each.lstat()
                if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                    raise ConfigError(f"the prefix cache is not a folder of yours: {each}")
                if stat.S_IMODE(status.st_mode) & ~OWNER_ALONE:
                    each.chmod(OWNER_ALONE)
            except OSError as error:
                raise ConfigError(f"cannot use the prefix cache: {each}: {error.strerror}") from None
        return folder

    def entry_path(self, model_key: str, last_hash: bytes) -> Path:
        """Return the path of the prefix that ends with this block."""
        return self.path / model_key / f"{last_hash.hex()}{SUFFIX}"

    def entries(self) -> list[EntryFile]:
        """List all entries, the most recently used first."""
        found = []
        for file in self._files():
            with suppress(OSError):
                status = file.lstat()
                found.append(EntryFile(file, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: entry.used_s, reverse=True)

    def _files(self) -> Iterator[Path]:
        with suppress(OSError):
            for folder in sorted(self.path.iterdir()):
                if folder.is_dir() and not folder.is_symlink():
                    yield from sorted(folder.glob(f"*{SUFFIX}"))

    def remove(self, entries: Sequence[EntryFile], *, with_notes: bool = False) -> int:
        """Remove entries, and with `with_notes` also the hashes of earlier prompts.

        Returns:
            The size of the removed entries in bytes.
        """
        freed = 0
        for entry in entries:
            with suppress(OSError):
                entry.path.unlink()
                freed += entry.nbytes
        if with_notes:
            with suppress(OSError):
                for folder in self.path.iterdir():
                    if folder.is_dir() and not folder.is_symlink():
                        shutil.rmtree(folder, ignore_errors=True)
        return freed

    def named(self, name: str) -> list[EntryFile]:
        """Return the entries whose hash begins with a name."""
        return [entry for entry in self.entries() if entry.path.name.startswith(name)]

    def has_room(self, nbytes: int) -> bool:
        """Return whether an entry of this size may be written."""
        return nbytes <= self.max_bytes and shutil.disk_usage(self.path).free - nbytes >= DISK_FLOOR_BYTES

    def shrink(self) -> list[EntryFile]:
        """Remove the least recently used entries if the total size exceeds the limit.

        Returns:
            The removed entries.
        """
        with self._locked() as is_ours:
            entries = self.entries()
            size = sum(entry.nbytes for entry in entries)
            removed: list[EntryFile] = []
            if not is_ours or size <= self.max_bytes:
                return removed
            while entries and size > KEPT_SHARE * self.max_bytes:
                entry = entries.pop()
                with suppress(OSError):
                    entry.path.unlink()
                    size -= entry.nbytes
                    removed.append(entry)
            return removed

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
