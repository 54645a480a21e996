"""A file that is written at the end, whole or not at all, and known to be writable from the start."""

import os
from contextlib import suppress
from pathlib import Path

from metal_gen.errors import MetalGenError, UsageError


class OutputFile:
    """A place for a result.

    Args:
        path: Of the file; an older one stays as it is until `write`.
        option: That named it.

    Raises:
        UsageError: Nothing can be written there.
    """

    def __init__(self, path: Path, option: str = "--output") -> None:
        # A device or a pipe is written to, not replaced; of a link it is the target that is replaced.
        self._is_special = path.exists() and not path.is_file()
        self.path = path.resolve() if path.is_symlink() and not self._is_special else path
        self._part = self.path.parent / f".{self.path.name}.{os.getpid()}.part"
        try:
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
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"{option} {path} cannot be written: {reason}") from None

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
