"""The destination of a result: a file written at the end, whole or not at all, or an open stream.

A file is checked to be writable at the start. A FIFO, a device or a descriptor opened by the shell cannot be
replaced: it is opened once, and written to as the text arrives.
"""

import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from metal_gen.control_characters import visible
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.files.descriptors import descriptor_named, open_for_writing
from metal_gen.files.paths import one_spelling, resolve, why_not_written
from metal_gen.files.whole_file import WholeFile, write_whole

STREAM = "-"
STDOUT = 1
Place = Path | tuple[int, int]


class OutputFile:
    """The destination of a result.

    Args:
        path: Path of the file; an older file is unchanged until `write`.
        option: The option that named it, for messages.
        private: Make a new file readable only by its owner.
        spares: A file that the run reads; `write_beside` leaves it unchanged.

    Attributes:
        path: The path as given.

    Raises:
        UsageError: The path cannot be written, or has the records of a run over rows.
    """

    def __init__(
        self, path: Path, option: str = "--output", *, private: bool = False, spares: Path | None = None
    ) -> None:
        self.path = path
        self._spares = spares
        self._private = private
        self._stream: BinaryIO | None = None
        try:
            descriptor = open_for_writing(path)
            if descriptor is None:
                WholeFile(path).discard()
            else:
                self._stream = open(descriptor, "wb")  # noqa: SIM115, PTH123
        except OSError as error:
            reason, hint = why_not_written(error, path)
            raise UsageError(f"{option} {path} cannot be written: {reason}", hint) from None
        if self._stream is None:
            _require_no_records(path, option)

    @property
    def is_stream(self) -> bool:
        """Whether the destination can only be appended to, not replaced."""
        return self._stream is not None

    def write(self, text: str) -> None:
        """Write the text to the file; append it to a stream.

        Raises:
            MetalGenError: The text cannot be written; an older file is unchanged.
        """
        try:
            if self._stream is None:
                write_whole(self.path, text.encode(), private=self._private)
            else:
                self._stream.write((visible(text) if self._stream.isatty() else text).encode())
                self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            reason, hint = why_not_written(error, self.path)
            raise MetalGenError(f"{self.path} cannot be written: {reason}", hint) from error

    def write_beside(self, text: str) -> Path | None:
        """Write an incomplete text next to the file, under its name with `.part`.

        Returns:
            The path; None if there is no text, or it cannot be written.
        """
        part = self.path.with_name(f"{self.path.name}.part")
        try:
            if not text or self.is_stream or not _may_be_replaced(part):
                return None
            spares = self._spares
            if spares is not None and part.exists() and spares.exists() and part.samefile(spares):
                return None
            write_whole(part, text.encode(), follows_link=False)
        except OSError:
            return None
        return part

    def discard(self) -> None:
        """Close the destination if nothing more will be written."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()


class CollectedText:
    """Collects the bytes that a pipe would get, to write them to a file at the end."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self._parts)

    def write_text(self, text: str) -> None:
        """Add a piece."""
        self._parts.append(text)

    def end_sample(self) -> None:
        """Separate one of several texts from the next."""
        self._parts.append("\0")


class StreamedText:
    """Writes pieces to a stream as they arrive.

    Args:
        file: The stream.
    """

    def __init__(self, file: OutputFile) -> None:
        self._file = file

    def write_text(self, text: str) -> None:
        """Write a piece; raises as `OutputFile.write` does."""
        self._file.write(text)

    def end_sample(self) -> None:
        """Separate one of several texts from the next."""
        self._file.write("\0")


def existing_file(name: str | None) -> str | None:
    """Return the name if it is that of a file: a model may also be a folder or a Hub id."""
    with suppress(OSError, ValueError):
        return name if name and Path(name).is_file() else None
    return None


def is_stdout(name: str | None) -> bool:
    """Return whether an output is standard output: none is named, or `-`, or `/dev/stdout`."""
    if name is None or name == STREAM:
        return True
    # An error here is reported when the file is opened.
    with suppress(OSError):
        return descriptor_named(Path(name)) == STDOUT
    return False


def refuse_descriptor(name: str) -> None:
    """Refuse an open descriptor where a file is needed that a later run can continue.

    Raises:
        UsageError: The name is `/dev/fd/N`, or a link to it.
    """
    with suppress(OSError):
        if descriptor_named(Path(name)) is not None:
            raise UsageError(
                f"the output {name} is open already: it is not a file of its own",
                "name the file, or give -o - and redirect it",
            )


def _require_no_records(path: Path, option: str) -> None:
    """Refuse to replace records of many rows by one result, as where `--jsonl` was forgotten.

    Raises:
        UsageError: The file has such records.
    """
    with suppress(OSError):
        if not (target := resolve(path)).is_file():
            return

        from metal_gen.batch.output.run_file import run_path

        if run_path(target).exists():
            raise UsageError(
                f"{option} {path} would replace the records of a run over rows",
                "name another file, or remove it",
            )


def _may_be_replaced(path: Path) -> bool:
    """Return whether a path is free or a regular file, and not a link that somebody may have put there."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return True


def require_different(**files: str | None) -> None:
    """Check that no file is both read and written, or written twice; `-` does not count.

    Raises:
        UsageError: Two names refer to the same file, or a name is invalid.
    """
    seen: dict[Place, str] = {}
    for what, name in files.items():
        if name is None or name == STREAM:
            continue
        if not name:
            raise UsageError(f"the file name of the {what.replace('_', ' ')} is empty", "name a file")
        try:
            place = _place(resolve(Path(name)))
        except OSError as error:
            reason, hint = why_not_written(error, Path(name))
            raise UsageError(f"the {what} {name} cannot be used: {reason}", hint) from None
        if place in seen:
            raise UsageError(f"the {what} {name} is the {seen[place]}", "name another file")
        if place is not None:
            seen[place] = what


def _place(path: Path) -> Place | None:
    """Return the identity of a file, whatever its name; None for a device, which may be used twice."""
    try:
        status = path.stat()
    except OSError:
        return one_spelling(path)
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
