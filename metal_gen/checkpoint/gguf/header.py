"""Reads the header of a GGUF file: its metadata, and which tensors it holds, without reading any of them.

Source: `docs/gguf.md` and `src/gguf.cpp` of https://github.com/ggml-org/ggml
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# struct's letters for the types of numbers.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
# By number: a type's name, how many numbers its blocks have, and the bytes of a block.
TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
MOST_AXES = 4
MOST_ITEMS = 1 << 24
DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class GgufTensor(TensorInfo):
    """One tensor of a GGUF file, whose dtype is spelled as ggml does: `Q4_K`."""


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says before its numbers.

    Attributes:
        path: The file.
        metadata: Numbers, texts and lists of either, by key.
        tensors: By their names in the file.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf_header(path: Path) -> GgufHeader:
    """Read what comes before the numbers.

    Raises:
        CheckpointError: The file is not GGUF, is damaged or cut short, or has tensors of a type that this
            program has never heard of.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise CheckpointError(
                    f"{path} is not a GGUF file: it does not begin with GGUF",
                    "download or copy the file again",
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(path, data)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def _read(path: Path, data: mmap.mmap) -> GgufHeader:
    cursor = _Cursor(path, data)
    version = cursor.number("I")
    if version not in VERSIONS:
        is_turned = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        raise CheckpointError(
            f"{path} is GGUF of version {version}, and {' and '.join(map(str, VERSIONS))} are read",
            "it is big-endian: get the little-endian file"
            if is_turned
            else "convert the model again with llama.cpp",
        )
    tensor_count, entry_count = cursor.number("Q"), cursor.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key = cursor.text()
        metadata[key] = cursor.value(key)
    infos = [cursor.tensor_info() for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise cursor.damaged(f"general.alignment is {alignment!r}")
    begin = -(-cursor.place // alignment) * alignment
    tensors = {info[0]: _tensor(path, begin, *info) for info in infos}
    if len(tensors) < tensor_count:
        raise cursor.damaged("two of its tensors have the same name")
    _require_whole(path, len(data), tensors)
    return GgufHeader(path, metadata, tensors)


def _tensor(path: Path, begin: int, name: str, shape: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
    if kind not in TENSOR_TYPES:
        raise CheckpointError(
            f"{path} cannot be used: the type of {name} has the number {kind}, which is not known here",
            "get the model as Q4_K_M, Q8_0, BF16 or F16",
        )
    dtype, block_numbers, block_bytes = TENSOR_TYPES[kind]
    if shape[-1] % block_numbers:
        raise _damaged(path, f"{name} has rows of {shape[-1]} and {dtype} has blocks of {block_numbers}")
    return GgufTensor(
        name, dtype, shape, math.prod(shape) // block_numbers * block_bytes, path, begin + offset
    )


def _require_whole(path: Path, file_bytes: int, tensors: dict[str, GgufTensor]) -> None:
    """Name the first tensor that the file does not have to its end."""
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
        end = tensor.offset + tensor.nbytes
        if end > file_bytes:
            raise _damaged(
                path, f"{tensor.name} ends at byte {end} and the file has {file_bytes}: it is cut short"
            )


class _Cursor:
    """Reads one value after the other.

    Args:
        path: What to call it in messages.
        data: The file, whose first four bytes have been read.
    """

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.place = len(MAGIC)
        self._path = path
        self._data = data
        self._size = len(data)

    def damaged(self, problem: str) -> CheckpointError:
        """The refusal that names the file."""
        return _damaged(self._path, problem)

    def _require(self, nbytes: int) -> None:
        if nbytes > self._size - self.place:
            raise self.damaged("it is cut short within its header, or its header makes no sense")

    def numbers(self, letter: str, count: int) -> tuple[Any, ...]:
        """So many numbers of one type."""
        size = struct.calcsize(f"<{letter}")
        self._require(count * size)
        values = struct.unpack_from(f"<{count}{letter}", self._data, self.place)
        self.place += count * size
        return values

    def number(self, letter: str) -> Any:
        """One number."""
        return self.numbers(letter, 1)[0]

    def text(self) -> str:
        """One text."""
        return self.texts(1)[0]

    def texts(self, count: int) -> list[str]:
        """So many texts; a tokenizer's are hundreds of thousands."""
        data, place, size, unpack = self._data, self.place, self._size, struct.Struct("<Q").unpack_from
        values = []
        try:
            for _ in range(count):
                (length,) = unpack(data, place)
                place += 8
                if length > size - place:
                    break
                values.append(data[place : place + length].decode())
                place += length
        except struct.error:
            pass
        except UnicodeDecodeError as error:
            raise self.damaged(f"a text at byte {place} of its header is not UTF-8") from error
        if len(values) < count:
            raise self.damaged("it is cut short within its header, or its header makes no sense")
        self.place = place
        return values

    def value(self, key: str) -> Any:
        """A value of the metadata, preceded by its type."""
        kind = self.number("I")
        if kind != LIST:
            return self._items(key, kind, 1)[0]
        item_kind, count = self.number("I"), self.number("Q")
        if count > MOST_ITEMS:
            raise self.damaged(f"{key} is said to have {count} items")
        return self._items(key, item_kind, count)

    def _items(self, key: str, kind: int, count: int) -> list[Any]:
        if kind == TEXT:
            return self.texts(count)
        if kind not in NUMBERS:
            raise self.damaged(f"{key} has values of a type with the number {kind}, which is not known here")
        return list(self.numbers(NUMBERS[kind], count))

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        """A tensor's name, its shape with rows last, the number of its type, and its place."""
        name, axes = self.text(), self.number("I")
        if not 1 <= axes <= MOST_AXES:
            raise self.damaged(f"{name} has {axes} axes")
        shape = tuple(reversed(self.numbers("Q", axes)))
        return name, shape, self.number("I"), self.number("Q")


def _damaged(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {problem}", "download or copy the file again")
