"""A folder that is there whole or not at all."""

import os
import shutil
from pathlib import Path
from typing import Self

from metal_gen.errors import UsageError
from metal_gen.files.modes import PERMISSIONS, umask
from metal_gen.files.parts import hold_part, part_path, remove_dead_parts
from metal_gen.files.paths import resolve, why_not_written
from metal_gen.files.sync import sync_file, sync_folder


class NewFolder:
    """Made beside its place and, once it is whole, put there; left without that, it is taken away.

    What a conversion has left that was killed is taken away by the next one to the same place.

    Args:
        path: Nothing may be there, or an empty folder.

    Attributes:
        part: Where to write until then; there from `__enter__` on.

    Raises:
        UsageError: Something is there.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.path = resolve(path)
            self.part = part_path(self.path)
            if self.path.is_dir() and not any(self.path.iterdir()):
                return
            if not self.path.exists():
                return
        except OSError as error:
            reason, hint = why_not_written(error, path)
            raise UsageError(f"{path} cannot be made: {reason}", hint) from None
        kind = "a folder that is not empty" if self.path.is_dir() else "a file"
        raise UsageError(f"{path} is {kind}", "name one that is not there yet")

    def __enter__(self) -> Self:
        """Make it.

        Raises:
            UsageError: It cannot be made.
        """
        try:
            remove_dead_parts(self.path)
            self._descriptor = self._make()
        except OSError as error:
            reason, hint = why_not_written(error, self.path)
            raise UsageError(f"{self.path} cannot be made: {reason}", hint) from None
        return self

    def publish(self) -> None:
        """Put it in its place.

        Raises:
            UsageError: Something has come there meanwhile.
        """
        try:
            for file in self.part.iterdir():
                with file.open("rb") as opened:
                    sync_file(opened.fileno())
            sync_folder(self.part)
            is_there = self.path.is_dir()
            mode = self.path.stat().st_mode if is_there else ~umask()
            self.part.chmod(mode & PERMISSIONS)
            self.part.rename(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be put in its place: {error.strerror}",
                "something has come there meanwhile: name a folder of its own for each conversion",
            ) from error

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.part, ignore_errors=True)
        os.close(self._descriptor)

    def _make(self) -> int:
        """Make a folder that nobody else can look into, and hold it."""
        while True:
            self.part = part_path(self.path)
            self.part.mkdir(0o700)
            descriptor = os.open(self.part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            if hold_part(descriptor, self.part):
                return descriptor
            os.close(descriptor)
