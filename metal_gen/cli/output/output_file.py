"""A file that is written at the end, whole or not at all, and known to be writable from the start."""

import os
import shlex
from contextlib import suppress
from pathlib import Path

from metal_gen.errors import MetalGenError, UsageError

STREAM = "-"


class OutputFile:
    """A place for a result.

    Args:
        path: Of the file; an older one stays as it is until `write`.
        option: That named it.

    Raises:
        UsageError: Nothing can be written there.
    """

    def __init__(self, path: Path, option: str = "--output") -> None:
        self._set_path(path)
        try:
            # A device or a pipe is written to, not replaced; of a link it is the target that is replaced.
            self._is_special = path.exists() and not path.is_file()
            if path.is_symlink() and not self._is_special:
                self._set_path(path.resolve())
            if self.path.is_dir():
                raise IsADirectoryError(21, "it is a folder")
            if self._is_special:
                self.path.open("ab").close()
            else:
                self._part.open("xb").close()
                if self.path.exists() and not os.access(self.path, os.W_OK):
                    raise PermissionError(13, "the file is read-only")
        except (OSError, ValueError) as error:
            self.discard()
            raise UsageError(*_why_not(error, f"{option} {path} cannot be written", self.path)) from None

    def _set_path(self, path: Path) -> None:
        self.path = path
        self._part = path.parent / f".{path.name}.{os.getpid()}.part"

    def write(self, text: str) -> None:
        """Put the text there.

        Raises:
            MetalGenError: It cannot be written after all; an older file is as before.
        """
        try:
            if self._is_special:
                self.path.write_bytes(text.encode())
                return
            with self._part.open("wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            self._part.replace(self.path)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise MetalGenError(f"{self.path} cannot be written: {error.strerror}") from error

    def discard(self) -> None:
        """Leave nothing behind of what was not written."""
        with suppress(OSError, ValueError):
            self._part.unlink(missing_ok=True)


class CollectedText:
    """What a pipe would get, kept until it can be put into a file."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._parts)

    def write_text(self, text: str) -> None:
        """Add a piece."""
        self._parts.append(text)

    def end_sample(self) -> None:
        """Tell one of several texts from the next."""
        self._parts.append("\0")


def _why_not(error: Exception, what: str, path: Path) -> tuple[str, str]:
    """A message and a hint."""
    if isinstance(error, FileNotFoundError) and not path.parent.exists():
        return (
            f"{what}: there is no folder {path.parent}",
            f"mkdir -p {shlex.quote(str(path.parent))} makes it",
        )
    reason = getattr(error, "strerror", None) or error
    if isinstance(error, IsADirectoryError):
        return f"{what}: {reason}", "name a file in it"
    return f"{what}: {reason}", "name a file in a folder that you can write to"


def require_different(**files: str | None) -> None:
    """Refuse to write over what is read, or to write two things to one place; `-` is no file.

    Raises:
        UsageError: Two are the same, or one has no name.
    """
    seen: dict[Path, str] = {}
    for what, name in files.items():
        if name is None or name == STREAM:
            continue
        if not name:
            raise UsageError(f"the file name of the {what.replace('_', ' ')} is empty", "name a file")
        path = Path(name).resolve()
        if path in seen and (path.is_file() or not path.exists()):
            raise UsageError(f"the {what} {name} is the {seen[path]}", "name another file")
        seen[path] = what
