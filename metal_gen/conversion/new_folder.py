"""A folder that is there whole or not at all."""

import os
import shutil
from pathlib import Path
from typing import Self

from metal_gen.errors import UsageError


class NewFolder:
    """Made beside its place and, once it is whole, put there; left without that, it is taken away.

    Args:
        path: Nothing may be there, or an empty folder.

    Attributes:
        part: Where to write until then; there from `__enter__` on.

    Raises:
        UsageError: Something is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.part = self.path.parent / f".{self.path.name}.{os.getpid()}.part"
        try:
            if self.path.is_dir() and not any(self.path.iterdir()):
                return
            if not self.path.exists():
                return
        except OSError as error:
            raise UsageError(f"{path} cannot be looked into: {error.strerror}") from None
        kind = "a folder that is not empty" if self.path.is_dir() else "a file"
        raise UsageError(f"{path} is {kind}", "name one that is not there yet")

    def __enter__(self) -> Self:
        """Make it.

        Raises:
            UsageError: It cannot be made.
        """
        try:
            self.part.mkdir()
        except OSError as error:
            raise UsageError(f"{self.path} cannot be made: {error.strerror}") from None
        return self

    def publish(self) -> None:
        """Put it in its place.

        Raises:
            UsageError: Something has come there meanwhile.
        """
        try:
            self.part.rename(self.path)
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be put in its place: {error.strerror}",
                "something has come there meanwhile: name a folder of its own for each conversion",
            ) from error

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.part, ignore_errors=True)
