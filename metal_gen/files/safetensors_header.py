"""Reads the header of a safetensors file: the list of its tensors, without their contents.

The `safetensors` package could do this too, but it imports numpy to open a file, which takes longer than
everything else before the first token of a small model.
Source: https://github.com/huggingface/safetensors#format
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from metal_gen.errors import CheckpointError, damaged
from metal_gen.excerpt import excerpt
from metal_gen.files.bounded_file import open_regular
from metal_gen.files.json_file import NotJsonError, parse_json

BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
MAX_HEADER_BYTES = 100_000_000
# Largest number of bits and largest offset in the format.
_LARGEST = 2**64 - 1


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        name: Name in the file.
        dtype: Dtype as the format spells it: `BF16`, `F32`.
        shape: Sizes of the axes.
        nbytes: Bytes in the file.
        path: Path of the file.
        offset: Offset of its first byte in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    path: Path
    offset: int

    @property
    def place(self) -> str:
        """Name and file of the tensor, for messages."""
        return f"{excerpt(self.name)} in {self.path.name}"


def read_header(path: Path) -> dict[str, TensorInfo]:
    """List the tensors of a safetensors file by name; errors as of `read_header_and_notes`."""
    tensors, _ = read_header_and_notes(path)
    return tensors


def read_header_and_notes(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """List the tensors of a safetensors file by name, and the texts under `__metadata__`.

    Refuses what the `safetensors` package refuses: a name that occurs twice, tensors that overlap, and bytes
    that belong to no tensor.

    Raises:
        CheckpointError: The file is not safetensors, or is shorter or longer than its header says.
    """
    try:
        file, file_bytes = open_regular(path)
        with file:
            return read_opened_header(file, file_bytes, path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def read_opened_header(
    file: BinaryIO, file_bytes: int, path: Path
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Read the header of an opened file as `read_header_and_notes` does.

    Raises:
        CheckpointError: As for `read_header_and_notes`.
        OSError: The file cannot be read.
    """
    try:
        header_bytes = int.from_bytes(file.read(8), "little")
        if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, file_bytes):
            raise damaged(path, "it has no safetensors header, or is cut short within it")
        header = parse_json(file.read(header_bytes), unique_names=True)
    except NotJsonError as error:
        raise damaged(path, f"its safetensors header {error}") from error

    if not isinstance(header, dict):
        raise damaged(path, "its safetensors header is not a JSON object")
    notes = _checked_notes(path, header.pop("__metadata__", None))
    tensors = {name: _tensor(path, name, entry, 8 + header_bytes) for name, entry in header.items()}
    end = _check_places(path, tensors, 8 + header_bytes)
    if end != file_bytes:
        raise damaged(path, f"its header describes {end} bytes and the file has {file_bytes}")
    return tensors, notes


def _tensor(path: Path, name: str, entry: Any, first_byte: int) -> TensorInfo:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        bits = BITS[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, name) from error
    if not isinstance(entry["shape"], list) or not all(map(_is_size, (*shape, begin, end))):
        raise _unreadable(path, name)
    for size in shape:
        bits *= size
        if bits > _LARGEST:
            raise damaged(path, f"{excerpt(name)} has more numbers than any file")
    if (end - begin) * 8 != bits:
        problem = f"{excerpt(name)} is {dtype} {excerpt(shape)}, which does not take {end - begin} bytes"
        raise damaged(path, problem)
    return TensorInfo(name, dtype, shape, end - begin, path, first_byte + begin)


def _is_size(value: object) -> bool:
    # Compare types, because bool is an int in Python.
    return type(value) is int and 0 <= value <= _LARGEST


def _checked_notes(path: Path, notes: Any) -> dict[str, str]:
    if notes is None:
        return {}
    if isinstance(notes, dict) and all(isinstance(note, str) for note in notes.values()):
        return notes
    raise damaged(path, "__metadata__ in its header must be texts by name")


def _check_places(path: Path, tensors: dict[str, TensorInfo], first_byte: int) -> int:
    """Check that each tensor begins where the one before ends. Return where the last one ends."""
    place = first_byte
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != place:
            problem = "overlaps another tensor" if tensor.offset < place else "follows bytes of no tensor"
            raise damaged(path, f"{excerpt(tensor.name)} {problem}")
        place += tensor.nbytes
    return place


def _unreadable(path: Path, name: str) -> CheckpointError:
    return damaged(path, f"its header cannot be read at {excerpt(name)}")
