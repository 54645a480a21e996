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
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

import mlx.core as mx

from metal_gen.cache.stored_text import StoredArray
from metal_gen.device.filled_array import ArrayFiller, Task
from metal_gen.errors import MetalGenError
from metal_gen.files.bounded_file import open_regular
from metal_gen.files.safetensors_header import BITS, TensorInfo, read_header_and_notes
from metal_gen.files.whole_file import WholeFile

IDS, CHECKSUMS = "ids", "crc32_of_pieces"
# Dates beyond the year 6000 are not times of writing.
MOST_SECONDS = 2**37
# Each piece of an array has its own checksum, so that several threads can read one array and compare.
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


class OtherVersionError(EntryError):
    """A stored prefix has the file format of another version of metal-gen, which could use it."""


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
            (CHECKSUMS, "U32", (_pieces([4 * len(ids), *(each.nbytes for each in layout)]),)),
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
        whole = memoryview(content)
        for begin in range(0, len(whole), PIECE_BYTES):
            self._checksums.append(zlib.crc32(whole[begin : begin + PIECE_BYTES]))
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
        OtherVersionError: The entry has the format of another version.
        EntryError: The entry is damaged, or is not a file of this user.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._require_own()
            self._tensors, notes = read_header_and_notes(path)
            self.notes = self._checked(notes)
        except EntryError:
            raise
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
        checksums = self._tensors.get(CHECKSUMS)
        if checksums is None:
            raise OtherVersionError(f"{self.path.name} is a stored prefix of another version")
        self._places, pieces = {}, 0
        for tensor in sorted(self._tensors.values(), key=lambda tensor: (tensor.offset, tensor.nbytes)):
            if tensor is not checksums:
                self._places[tensor.name] = pieces
                pieces += _pieces([tensor.nbytes])
        is_whole = ids.dtype == "U32" and ids.shape == (notes.tokens,)
        is_whole &= checksums.dtype == "U32" and checksums.shape == (pieces,)
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
        """Read the arrays of a layout one by one, and compare their checksums.

        A number that has changed on the disk would change the text, and nobody would know.

        Raises:
            EntryError: The file has a different layout, has changed, or cannot be read.
        """
        for each in layout:
            info = self._tensors.get(each.name)
            if info is None or info.shape != each.shape or info.dtype != SPELLED[each.dtype][0]:
                raise EntryError(f"{self.path.name} does not hold what this model needs: {each.name}")
        checksums = self._checksums()
        with self._opened() as file, ArrayFiller() as filler:
            for each in layout:
                info = self._tensors[each.name]
                yield filler.array(
                    info.dtype, info.shape, partial(self._tasks, info, file.fileno(), checksums)
                )

    def verify(self) -> None:
        """Read the file and compare its checksums.

        Raises:
            EntryError: The data has changed since it was written.
        """
        checksums, buffer = self._checksums(), memoryview(bytearray(PIECE_BYTES))
        with self._opened() as file:
            for name in self._places:
                for task in self._tasks(self._tensors[name], file.fileno(), checksums, buffer):
                    task()

    def _checksums(self) -> tuple[int, ...]:
        content = self._read(self._tensors[CHECKSUMS])
        return struct.unpack(f"<{len(content) // 4}I", content)

    def _tasks(
        self, info: TensorInfo, descriptor: int, checksums: Sequence[int], memory: memoryview
    ) -> list[Task]:
        """Return tasks that each read and check a piece of a tensor.

        Args:
            info: The tensor.
            descriptor: The opened file.
            checksums: Checksums of all pieces of the file.
            memory: Memory for the whole tensor, or for a single piece that each task overwrites.
        """
        tasks: list[Task] = []
        for number, begin in enumerate(range(0, info.nbytes, PIECE_BYTES), self._places[info.name]):
            start = begin if len(memory) >= info.nbytes else 0
            piece = memory[start : start + min(PIECE_BYTES, info.nbytes - begin)]
            read = partial(self._read_piece, info, descriptor, info.offset + begin, piece)
            tasks.append(partial(read, checksums[number]))
        return tasks

    def _read_piece(
        self, info: TensorInfo, descriptor: int, offset: int, piece: memoryview, checksum: int
    ) -> None:
        done = 0
        try:
            while done < len(piece):
                count = os.preadv(descriptor, [piece[done:]], offset + done)
                if not count:
                    raise EntryError(f"{self.path.name} is damaged: it is cut short")
                done += count
        except OSError as error:
            raise EntryError(f"cannot read {self.path.name}: {error.strerror}") from None
        if zlib.crc32(piece) != checksum:
            raise EntryError(f"{self.path.name} is damaged: {info.name} has changed")

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


def _pieces(sizes: Sequence[int]) -> int:
    return sum(-(-nbytes // PIECE_BYTES) for nbytes in sizes)


def _nbytes(dtype: str, shape: Sequence[int]) -> int:
    count = BITS[dtype] // 8
    for size in shape:
        count *= size
    return count
