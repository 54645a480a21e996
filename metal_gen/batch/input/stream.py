"""Reads the bytes of an input as they arrive: from a file, possibly compressed with gzip, or from a pipe.

A pipe is polled so that rows that have arrived are run while the next one has not. A writer that waits for
the record of each row gets it.
"""

import errno
import gzip
import io
import os
import select
import stat
import zlib
from collections.abc import Iterator

from metal_gen.batch.input.file_kinds import require_json_lines
from metal_gen.errors import MetalGenError

CHUNK_BYTES = 2**16
COUNTED_BYTES = 2**20
GZIP_MARK = b"\x1f\x8b"
UNREADABLE = (OSError, EOFError, zlib.error)


class InputStream:
    """An input that is read once, from its current position.

    Args:
        file: Open, unbuffered file; `close` closes it.
        name: Name of the file; None for standard input.
        command: Name of the command that reads it, for hints.

    Attributes:
        name: Name of the file; None for standard input.
        is_file: Whether the input is a regular file: its length is known, and reading never waits.
    """

    def __init__(self, file: io.FileIO, name: str | None, command: str = "batch") -> None:
        self._file, self.name = file, name
        self._command = command
        status = self._status = os.fstat(file.fileno())
        self.is_file = stat.S_ISREG(status.st_mode)
        self._begin = file.tell() if self.is_file else 0
        self._ahead = b""
        self._is_over = False
        is_packed = self.is_file and os.pread(file.fileno(), len(GZIP_MARK), self._begin) == GZIP_MARK
        self._unpacked = gzip.GzipFile(fileobj=io.BufferedReader(file)) if is_packed else None

    def read(self) -> bytes | None:
        """Return the bytes that have arrived: empty at the end, None if nothing has arrived yet.

        Raises:
            OSError: The input cannot be read.
        """
        data, self._ahead = self._ahead, b""
        return data or self._read()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for bytes or the end of the input; return False on timeout."""
        return self.is_file or bool(select.select([self._file], [], [], timeout_s)[0])

    def require_json_lines(self) -> None:
        """Wait for the first line that is not blank, and check that it can be a row.

        Raises:
            UsageError: The input has another format; the hint has a command that converts it.
            MetalGenError: The input cannot be read.
        """
        try:
            while not self._is_over and len(self._ahead) < CHUNK_BYTES and b"\n" not in self._ahead.lstrip():
                data = self._read()
                if data is None:
                    self.wait()
                else:
                    self._ahead += data
        except OSError as error:
            raise MetalGenError(f"the input cannot be read: {error.strerror or error}") from error
        require_json_lines(self.name, self._ahead, self._command)

    def count_rows(self) -> int | None:
        """Count the lines that are not blank; return None for a pipe or an unreadable file."""
        if not self.is_file:
            return None
        try:
            return _count_lines(self.whole())
        except UNREADABLE:
            return None

    def whole(self) -> io.BufferedIOBase:
        """Open a second reader at the beginning of the file; it raises the errors in UNREADABLE."""
        whole = io.BufferedReader(_FileFrom(self._file.fileno(), self._begin))
        return gzip.GzipFile(fileobj=whole) if self._unpacked else whole

    def was_written(self) -> bool:
        """Return whether the file has been written to since it was opened."""
        now = os.fstat(self._file.fileno())
        return (now.st_mtime_ns, now.st_size) != (self._status.st_mtime_ns, self._status.st_size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> bytes | None:
        if self._is_over:
            return b""
        data = self._unpack() if self._unpacked else self._read_plain()
        self._is_over = data == b""
        return data

    def _unpack(self) -> bytes:
        assert self._unpacked is not None
        try:
            return self._unpacked.read1(CHUNK_BYTES)
        except (EOFError, zlib.error) as error:
            raise OSError(errno.EIO, f"the gzip data is damaged: {error}") from error

    def _read_plain(self) -> bytes | None:
        if not self.is_file and not select.select([self._file], [], [], 0)[0]:
            return None
        data: bytes | None = self._file.read(CHUNK_BYTES)
        if data == b"" and self.is_file and self._file.tell() < self._status.st_size:
            raise OSError(errno.EIO, "it has become shorter since it was opened")
        return data


class _FileFrom(io.RawIOBase):
    """A second reader of an open file, from a position of its own."""

    def __init__(self, descriptor: int, place: int) -> None:
        self._descriptor, self._place = descriptor, place

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._descriptor, len(buffer), self._place)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _count_lines(stream: io.BufferedIOBase) -> int:
    """Count lines that are not blank; memory does not depend on their length."""
    count, is_blank = 0, True
    for chunk in _chunks(stream):
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            count += not (is_blank and not part.strip())
            is_blank = True
        is_blank = is_blank and not rest.strip()
    return count + (not is_blank)


def _chunks(stream: io.BufferedIOBase) -> Iterator[bytes]:
    while chunk := stream.read(COUNTED_BYTES):
        yield chunk
