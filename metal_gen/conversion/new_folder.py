"""Creates a folder that appears complete or not at all."""

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
    """A folder that is written next to its final place and moved there when complete; otherwise deleted.

    The remains of a killed conversion are deleted by the next conversion to the same place.

    Args:
        path: The final place; it must not exist, or be an empty folder.

    Attributes:
        part: The folder to write to; it exists from `__enter__` on.

    Raises:
        UsageError: The place is taken.
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
            raise UsageError(f"{path} cannot be created: {reason}", hint) from None
        kind = "a folder that is not empty" if self.path.is_dir() else "a file"
        raise UsageError(f"{path} is {kind}", "name a folder that does not exist yet")

    def __enter__(self) -> Self:
        """Create the folder.

        Raises:
            UsageError: The folder cannot be created.
        """
        try:
            remove_dead_parts(self.path)
            self._descriptor = self._make()
        except OSError as error:
            reason, hint = why_not_written(error, self.path)
            raise UsageError(f"{self.path} cannot be created: {reason}", hint) from None
        return self

    def publish(self) -> None:
        """Move the folder to its final place.

        Raises:
            UsageError: The place has been taken meanwhile.
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
                f"{self.path} cannot be moved into place: {error.strerror}",
                "something else was written there meanwhile: give each conversion its own folder",
            ) from error

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.part, ignore_errors=True)
        os.close(self._descriptor)

    def _make(self) -> int:
        """Create and lock a folder that no other user can look into; return its descriptor."""
        while True:
            self.part = part_path(self.path)
            self.part.mkdir(0o700)
            descriptor = os.open(self.part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            if hold_part(descriptor, self.part):
                return descriptor
            os.close(descriptor)
