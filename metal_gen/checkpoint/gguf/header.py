"""Reads the header of a GGUF file: its metadata, and the list of its tensors without their contents.

Source: `docs/gguf.md` and `src/gguf.cpp` of https://github.com/ggml-org/ggml
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metal_gen.checkpoint.gguf.arrangement import Arrangement
from metal_gen.checkpoint.gguf.cursor import Cursor
from metal_gen.errors import CheckpointError, damaged
from metal_gen.excerpt import excerpt
from metal_gen.files.bounded_file import open_regular
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.config.fields import FieldReader

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# Each type by its number: its name, the numbers per block, and the bytes per block.
TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}  # fmt: skip
DEFAULT_ALIGNMENT = 32
# llama.cpp's limit.
MOST_NAME_BYTES = 63
LARGEST_SIZE = 2**63 - 1
OTHER_FILE = "download the file again, or get one that llama.cpp's own converter has written"
# Limit on tensors and on keys. The largest models have a few thousand tensors and a hundred keys.
MOST_ENTRIES = 100_000


@dataclass(frozen=True)
class GgufTensor(TensorInfo):
    """One tensor of a GGUF file. Its dtype is ggml's name of the type, such as `Q4_K`.

    Attributes:
        arrangement: How the model's numbers are arranged in the file; None if both are the same.
    """

    arrangement: Arrangement | None = None


@dataclass(frozen=True)
class GgufHeader:
    """The header of a GGUF file.

    Attributes:
        path: Path of the file.
        metadata: Numbers, texts and lists of either, by key.
        tensors: Tensors by their names in the file.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]

    @property
    def fields(self) -> FieldReader:
        """The metadata, to read with errors that name the file."""
        return FieldReader(self.metadata, f"the metadata of {self.path}", OTHER_FILE)


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file.

    Refuses what llama.cpp refuses: keys and names that occur twice, and tensors that do not follow each
    other.

    Raises:
        CheckpointError: The file is not GGUF, is damaged or cut short, or has tensors of an unknown type.
    """
    try:
        file, file_bytes = open_regular(path)
        with file:
            if file.read(len(MAGIC)) != MAGIC:
                raise CheckpointError(
                    f"{path} is not a GGUF file: it does not begin with GGUF",
                    "download or copy the file again",
                )
            file.seek(0)
            return _read(path, Cursor(path, file), file_bytes)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def _read(path: Path, cursor: Cursor, file_bytes: int) -> GgufHeader:
    cursor.take(len(MAGIC))
    version = cursor.number("I")
    if version not in VERSIONS:
        is_turned = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        raise CheckpointError(
            f"{path} is GGUF of version {version}, and only {' and '.join(map(str, VERSIONS))} are supported",
            "it is big-endian: get the little-endian file"
            if is_turned
            else "convert the model again with llama.cpp",
        )
    tensor_count, entry_count = cursor.number("Q"), cursor.number("Q")
    if max(tensor_count, entry_count) > MOST_ENTRIES:
        raise cursor.damaged(f"it claims to have {tensor_count:,} tensors and {entry_count:,} entries")
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key = cursor.text()
        if not key or key in metadata:
            raise cursor.damaged(f"a key of its metadata occurs twice, or is empty: {excerpt(repr(key))}")
        metadata[key] = cursor.value(key)
    infos: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(tensor_count):
        name, shape, kind, offset = cursor.tensor_info()
        if name in infos:
            raise cursor.damaged(f"two of its tensors have the same name: {excerpt(name)}")
        infos[name] = (shape, kind, offset)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise cursor.damaged(f"general.alignment is {excerpt(repr(alignment))}, which is not a power of 2")
    begin = _next_multiple(cursor.place, alignment)
    tensors = {name: _tensor(path, begin, name, *info) for name, info in infos.items()}
    _check_places(path, file_bytes, begin, alignment, tensors)
    return GgufHeader(path, metadata, tensors)


def _tensor(path: Path, begin: int, name: str, shape: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
    if len(name.encode()) > MOST_NAME_BYTES:
        raise damaged(path, f"the name of a tensor is too long: {excerpt(name)}")
    if kind not in TENSOR_TYPES:
        raise CheckpointError(
            f"{path} cannot be used: the type of {name} has the number {kind}, which is unknown",
            "get the model as Q4_K_M, Q8_0, BF16 or F16",
        )
    dtype, block_numbers, block_bytes = TENSOR_TYPES[kind]
    if shape[-1] % block_numbers:
        raise damaged(path, f"{name} has rows of {shape[-1]}, but {dtype} has blocks of {block_numbers}")
    if max(shape) > LARGEST_SIZE or math.prod(shape) > LARGEST_SIZE:
        raise damaged(path, f"{name} has more numbers than any file")
    nbytes = math.prod(shape) // block_numbers * block_bytes
    return GgufTensor(name, dtype, shape, nbytes, path, begin + offset)


def _check_places(
    path: Path, file_bytes: int, begin: int, alignment: int, tensors: dict[str, GgufTensor]
) -> None:
    """Check that the tensors follow each other from the beginning of the numbers, and are complete."""
    place = begin
    for tensor in tensors.values():
        if tensor.offset != place:
            raise damaged(
                path, f"{tensor.name} begins at byte {tensor.offset}, but the one before it ends at {place}"
            )
        end = place + tensor.nbytes
        if end > file_bytes:
            raise damaged(
                path, f"{tensor.name} ends at byte {end}, but the file has {file_bytes}: it is cut short"
            )
        place += _next_multiple(tensor.nbytes, alignment)


def _next_multiple(count: int, of: int) -> int:
    return -(-count // of) * of
