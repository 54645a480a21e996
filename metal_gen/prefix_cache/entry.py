"""A stored prefix: one safetensors file with its tokens, and the keys and values of every layer.

The file is written whole or not at all. Its header has everything that a reader checks before it uses the
data.
"""

import json
import os
import stat
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import mlx.core as mx

from metal_gen.cache.stored_text import StoredArray
from metal_gen.errors import MetalGenError
from metal_gen.files.bounded_file import open_regular
from metal_gen.files.safetensors_header import BITS, TensorInfo, read_header_and_notes
from metal_gen.files.whole_file import WholeFile

IDS, CHECKSUMS = "ids", "crc32"
# Dates beyond the year 6000 are not times of writing.
MOST_SECONDS = 2**37
# So much is read at once to be compared with its checksum.
PIECE_BYTES = 1 << 20
# Names of MLX's dtypes in safetensors, and dtypes of the same size that a memoryview supports.
SPELLED = {
    mx.float32: ("F32", mx.uint32),
    mx.float16: ("F16", mx.uint16),
    mx.bfloat16: ("BF16", mx.uint16),
    mx.uint32: ("U32", mx.uint32),
}


class EntryError(MetalGenError):
    """A stored prefix cannot be used. The prompt is computed instead."""


@dataclass(frozen=True)
class EntryNotes:
    """The metadata of an entry.

    Attributes:
        model: Human-readable name of the model.
        tokens: Number of tokens.
        written_s: Time of writing, in seconds since 1970.
    """

    model: str
    tokens: int
    written_s: float


class EntryWriter:
    """Writes an entry array by array.

    Args:
        path: Path of the entry.
        ids: Tokens of the prefix.
        layout: Names, shapes and dtypes of the arrays, in order.
        model: Human-readable name of the model.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, ids: Sequence[int], layout: Sequence[StoredArray], model: str) -> None:
        self._file = WholeFile(path, private=True, follows_link=False)
        self._checksums: list[int] = []
        places: dict[str, Any] = {
            "__metadata__": {"model": model, "tokens": str(len(ids)), "written_s": str(round(time.time()))}
        }
        end = 0
        shapes = [(each.name, SPELLED[each.dtype][0], each.shape) for each in layout]
        for name, dtype, shape in (
            (IDS, "U32", (len(ids),)),
            *shapes,
            (CHECKSUMS, "U32", (len(layout) + 1,)),
        ):
            begin, end = end, end + _nbytes(dtype, shape)
            places[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        header = json.dumps(places).encode()
        self._file.write(len(header).to_bytes(8, "little") + header)
        self.add(struct.pack(f"<{len(ids)}I", *ids))

    def add(self, content: bytes | memoryview) -> None:
        """Write the next array of the layout, from `bytes_of`.

        Raises:
            OSError: The array cannot be written; nothing is left.
        """
        self._checksums.append(zlib.crc32(content))
        self._file.write(content)

    def commit(self) -> None:
        """Write the checksums and move the entry to its final place.

        Raises:
            OSError: The file cannot be written; nothing is left.
        """
        self._file.write(struct.pack(f"<{len(self._checksums)}I", *self._checksums))
        self._file.commit()

    def discard(self) -> None:
        """Delete an incomplete entry."""
        self._file.discard()


def bytes_of(array: mx.array) -> memoryview:
    """Compute an array and return its bytes.

    A thread that computes keeps a thread of MLX, so this is for the thread that computes anyway.
    """
    numbers: Any = array.view(SPELLED[array.dtype][1])
    mx.eval(numbers)
    return memoryview(numbers).cast("B")


class Entry:
    """An open entry: its header is checked, and its arrays are read when they are needed.

    Args:
        path: Path of the entry.

    Raises:
        EntryError: The entry is damaged, or is not a file of this user.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._require_own()
            self._tensors, notes = read_header_and_notes(path)
            self.notes = self._checked(notes)
        except MetalGenError as error:
            raise EntryError(error.message) from None
        except OSError as error:
            raise EntryError(f"cannot read {path.name}: {error.strerror}") from None

    def _require_own(self) -> None:
        status = self.path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise EntryError(f"{self.path.name} is not a file of yours")

    def _checked(self, given: dict[str, str]) -> EntryNotes:
        try:
            notes = EntryNotes(given["model"], int(given["tokens"]), float(given["written_s"]))
            ids = self._tensors[IDS]
        except (KeyError, ValueError):
            raise EntryError(f"{self.path.name} is not a stored prefix") from None
        is_whole = ids.dtype == "U32" and ids.shape == (notes.tokens,) and CHECKSUMS in self._tensors
        if not is_whole or not 0 <= notes.written_s < MOST_SECONDS:
            raise EntryError(f"{self.path.name} is damaged: its header contradicts itself")
        return notes

    def ids(self) -> list[int]:
        """Read the tokens.

        Raises:
            EntryError: The tokens cannot be read.
        """
        content = self._read(self._tensors[IDS])
        return list(struct.unpack(f"<{len(content) // 4}I", content))

    def arrays(self, layout: Sequence[StoredArray]) -> Iterator[mx.array]:
        """Yield the arrays of a layout, each read when it is computed.

        Raises:
            EntryError: The file has a different layout, or cannot be read.
        """
        for each in layout:
            info = self._tensors.get(each.name)
            if info is None or info.shape != each.shape or info.dtype != SPELLED[each.dtype][0]:
                raise EntryError(f"{self.path.name} does not hold what this model needs: {each.name}")
        try:
            loaded: Any = mx.load(str(self.path), format="safetensors")
        except (RuntimeError, ValueError, OSError) as error:
            raise EntryError(f"cannot read {self.path.name}: {error}") from None
        for each in layout:
            yield loaded.pop(each.name)

    def verify(self, part: int = 0, parts: int = 1) -> None:
        """Read the file and compare its checksums.

        Args:
            part: Which part to read, from 0.
            parts: Number of parts, of about the same size, that several threads read.

        Raises:
            EntryError: The data has changed since it was written.
        """
        stored = self._read(self._tensors[CHECKSUMS])
        *tensors, _ = sorted(self._tensors.values(), key=lambda tensor: tensor.offset)
        for place in range(part, len(tensors), parts):
            tensor = tensors[place]
            if self._checksum(tensor) != int.from_bytes(stored[4 * place : 4 * place + 4], "little"):
                raise EntryError(f"{self.path.name} is damaged: {tensor.name} has changed")

    def _checksum(self, info: TensorInfo) -> int:
        checksum, buffer = 0, memoryview(bytearray(min(PIECE_BYTES, info.nbytes)))
        with self._opened() as file:
            file.seek(info.offset)
            for begin in range(0, info.nbytes, PIECE_BYTES):
                count = file.readinto(buffer[: info.nbytes - begin])
                checksum = zlib.crc32(buffer[:count], checksum)
        return checksum

    def _read(self, info: TensorInfo) -> bytes:
        with self._opened() as file:
            file.seek(info.offset)
            content = file.read(info.nbytes)
        if len(content) != info.nbytes:
            raise EntryError(f"{self.path.name} is damaged: it is cut short")
        return content

    @contextmanager
    def _opened(self) -> Iterator[BufferedReader]:
        try:
            file, _ = open_regular(self.path)
            with file:
                yield file
        except OSError as error:
            raise EntryError(f"cannot read {self.path.name}: {error.strerror}") from None


def _nbytes(dtype: str, shape: Sequence[int]) -> int:
    count = BITS[dtype] // 8
    for size in shape:
        count *= size
    return count
