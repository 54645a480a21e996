"""Reads the header of a safetensors file: which tensors it holds, without reading any of them.

The `safetensors` package would do this too, but imports numpy to open a file, which takes longer
than everything else before the first token of a small model.

Source: https://github.com/huggingface/safetensors#format
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metal_gen.errors import CheckpointError

BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        name: In the file.
        dtype: As the format spells it: `BF16`, `F32`.
        shape: Sizes of the axes.
        nbytes: Bytes in the file.
        path: The file.
        offset: Of its first byte in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    path: Path
    offset: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """List the tensors of a safetensors file by name.

    Raises:
        CheckpointError: The file is not safetensors, or is shorter or longer than its header says.
    """
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, file_bytes):
                raise _damaged(path, "it has no safetensors header, or is cut short within it")
            header = json.loads(file.read(header_bytes))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its safetensors header is not JSON") from error

    if not isinstance(header, dict):
        raise _damaged(path, "its safetensors header is not a JSON object")
    header.pop("__metadata__", None)
    tensors, end = {}, 0
    for name, entry in header.items():
        tensors[name], tensor_end = _tensor(path, name, entry, 8 + header_bytes)
        end = max(end, tensor_end)
    if 8 + header_bytes + end != file_bytes:
        raise _damaged(
            path, f"its header describes {8 + header_bytes + end} bytes and the file has {file_bytes}"
        )
    return tensors


def _tensor(path: Path, name: str, entry: Any, first_byte: int) -> tuple[TensorInfo, int]:
    try:
        dtype, shape = entry["dtype"], tuple(int(size) for size in entry["shape"])
        begin, end = (int(offset) for offset in entry["data_offsets"])
        bits = math.prod(shape) * BITS[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"its header cannot be read at {name}") from error
    if begin < 0 or (end - begin) * 8 != bits:
        raise _damaged(path, f"{name} is {dtype} {shape}, which does not take {end - begin} bytes")
    return TensorInfo(name, dtype, shape, end - begin, path, first_byte + begin), end


def _damaged(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {problem}", "download or copy the file again")
