"""Writes tensors to safetensors files, block by block, with an index if there are several files."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from metal_gen.files.weight_files import WEIGHTS_INDEX, shard_name
from metal_gen.models.matrices.parameters import Shape
from metal_gen.prefix_cache.entry import SPELLED, bytes_of
from scripts.random_checkpoint.numbers import RandomNumbers

ALIGNMENT = 8


def write_weights(
    folder: Path,
    shapes: Mapping[str, Shape],
    numbers: RandomNumbers,
    *,
    shard_bytes: int,
    stored_as: Callable[[str], str],
) -> int:
    """Write the weights as Hugging Face does, and return their bytes.

    Args:
        folder: Folder of the files.
        shapes: Shape of each tensor by its name in a text model.
        numbers: Makes the tensors.
        shard_bytes: Maximum size of a file, unless a single tensor is larger.
        stored_as: Returns the name that a tensor has in the files.

    Raises:
        OSError: A file cannot be written.
    """
    sizes = {name: numbers.dtype.size * math.prod(shape) for name, shape in shapes.items()}
    shards = _shards(sizes, shard_bytes)
    count, weight_map = len(shards), {}
    for number, names in enumerate(shards, 1):
        file = shard_name(number, count)
        with (folder / file).open("wb") as opened:
            tensors = {stored_as(name): (shapes[name], sizes[name]) for name in names}
            opened.write(_header(tensors, SPELLED[numbers.dtype][0]))
            for name in names:
                for block in numbers.blocks(name, shapes[name]):
                    opened.write(bytes_of(block))
        weight_map.update({stored_as(name): file for name in names})
    total_bytes = sum(sizes.values())
    if count > 1:
        index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / WEIGHTS_INDEX).write_text(json.dumps(index, indent=2))
    return total_bytes


def _shards(sizes: Mapping[str, int], shard_bytes: int) -> list[list[str]]:
    """Return the names of the tensors in each file."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _header(tensors: Mapping[str, tuple[Shape, int]], dtype: str) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, (shape, size) in tensors.items():
        offsets = [place, place + size]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        place += size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
