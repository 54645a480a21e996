"""Reads the headers of a GGUF file that is split into parts, as if it were one file.

Source: `tools/gguf-split` and `src/llama-model-loader.cpp` of https://github.com/ggml-org/llama.cpp
"""

from dataclasses import replace
from pathlib import Path

from metal_gen.checkpoint.gguf.header import GgufHeader, GgufTensor, read_gguf_header
from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.files.gguf_names import missing_parts, part_paths

COUNT, PLACE, TENSORS = "split.count", "split.no", "split.tensors.count"
# Largest number of parts, which have five digits, and of tensors.
MOST_NUMBER = 99_999


def read_gguf(path: Path) -> GgufHeader:
    """Read the header of a file and, if it is one of several parts, of all parts.

    Args:
        path: The file, or any of its parts.

    Returns:
        The header of the first part, with the tensors of all parts.

    Raises:
        CheckpointError: The file cannot be read, as for `read_gguf_header`; or a part is missing, or belongs
            to another file.
    """
    header = read_gguf_header(path)
    count = _number(header, COUNT)
    if count <= 1:
        return header
    paths = [path for path, _ in zip(part_paths(path), range(count + 1), strict=False)]
    if len(paths) != count:
        raise CheckpointError(
            f"{path} cannot be used: it is one of {count} parts, but its name is not that of a part",
            f"rename the parts as they were published: NAME-00001-of-{count:05d}.gguf and so on",
        )
    if missing := missing_parts(path):
        raise CheckpointError(
            f"{path} is one of {count} parts, and others are missing: {', '.join(map(excerpt, missing))}",
            "download or copy them to the same folder",
        )
    return _joined([read_gguf_header(part) if part != path else header for part in paths])


def _joined(parts: list[GgufHeader]) -> GgufHeader:
    first, count = parts[0], len(parts)
    tensors: dict[str, GgufTensor] = {}
    for place, part in enumerate(parts):
        if (_number(part, COUNT), _number(part, PLACE)) != (count, place):
            raise _damaged(part, f"it says that it is not part {place + 1} of {count}")
        if twice := sorted(tensors.keys() & part.tensors.keys()):
            raise _damaged(part, f"{excerpt(twice[0])} is in another part too")
        tensors.update(part.tensors)
    if (expected := _number(first, TENSORS, len(tensors))) != len(tensors):
        raise _damaged(first, f"its parts should have {expected:,} tensors, but they have {len(tensors):,}")
    return replace(first, tensors=tensors)


def _number(header: GgufHeader, key: str, default: int = 0) -> int:
    value = header.metadata.get(key, default)
    if type(value) is not int or not 0 <= value <= MOST_NUMBER:
        raise _damaged(header, f"{key} is {excerpt(repr(value))}")
    return value


def _damaged(part: GgufHeader, problem: str) -> CheckpointError:
    return CheckpointError(f"{part.path} is damaged: {problem}", "download or copy all parts again")
