"""Chooses the files of a checkpoint that hold its weights: one rule for a folder, the cache and the Hub."""

import re
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import Any

from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.files.json_file import read_json
from metal_gen.files.safe_names import is_plain_name
from metal_gen.files.safetensors_header import TensorInfo, read_header

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
WEIGHTS_SUFFIX = ".safetensors"
MTP_FILE = "mtp.safetensors"
WEIGHTS_PATTERN = "model*.safetensors"
NUMBERED_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")
LISTED_NAMES = 6
# The largest published models have a few hundred.
MOST_FILES = 10_000


def shard_name(number: int, count: int) -> str:
    """Return the name of a weight file, numbered from 1, of so many."""
    return WEIGHTS_FILE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def read_index(index: Path) -> dict[str, str]:
    """Return the weight file of each tensor that an index names, or nothing if there is no index.

    Raises:
        CheckpointError: The index cannot be read, or names files in another folder.
    """
    return weight_map_of(read_json(index), str(index)) if _is_file(index) else {}


def weight_map_of(index: Any, source: str) -> dict[str, str]:
    """Return the weight file of each tensor from the contents of an index.

    Args:
        index: Value of any type.
        source: Name of the index in error messages.

    Raises:
        CheckpointError: The value is not an index, or names files in another folder, which could be any
            files of the machine.
    """
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{source} is damaged: it has no weight_map", "download or copy the file again")
    for file in weight_map.values():
        if not is_plain_name(file):
            raise CheckpointError(
                f"{source} names a file outside its folder: {excerpt(repr(file))}",
                "choose a repository whose weights are next to their index",
            )
    if len(set(weight_map.values())) > MOST_FILES:
        raise CheckpointError(f"{source} names more than {MOST_FILES:,} files")
    return weight_map


def choose_weights(names: Collection[str], shards: Collection[str]) -> list[str]:
    """Choose the files that hold the weights from a repository's files.

    Published repositories contain stale indexes and stray files. So the index counts only if every file it
    names exists. Next comes the single file, then numbered shards, then any file with the right name.

    Args:
        names: All files in the repository.
        shards: Files that its index names; empty without an index.

    Returns:
        The weight files, sorted; empty if the repository has none.
    """
    names = {name for name in names if is_plain_name(name) and name.endswith(WEIGHTS_SUFFIX)}
    if shards and set(shards) <= names:
        return sorted(shards)
    if WEIGHTS_FILE in names:
        return [WEIGHTS_FILE]
    numbered = sorted(name for name in names if NUMBERED_SHARD.fullmatch(name))
    return numbered or sorted(name for name in names if Path(name).match(WEIGHTS_PATTERN))


def read_headers(folder: Path) -> dict[str, TensorInfo]:
    """List the tensors of a folder's weight files by name.

    If several files have the same tensor, the one in the file that the index names counts.

    Raises:
        CheckpointError: A file is missing or damaged, or several files have a tensor and no index says
            which one counts.
    """
    weight_map = read_index(folder / WEIGHTS_INDEX)
    paths = _find_weights(folder, sorted(set(weight_map.values())))
    tensors: dict[str, TensorInfo] = {}
    in_two: dict[str, tuple[Path, Path]] = {}
    for path in paths:
        for name, tensor in read_header(path).items():
            if name in tensors:
                in_two[name] = (tensors[name].path, path)
            if name not in tensors or weight_map.get(name) == path.name:
                tensors[name] = tensor
    for name, (one, other) in in_two.items():
        if weight_map.get(name) != tensors[name].path.name:
            raise CheckpointError(
                f"{folder} has {excerpt(name)} both in {one.name} and in {other.name}, and no "
                f"{WEIGHTS_INDEX} says which of them counts",
                "remove the file that does not belong to this model, or add the index",
            )
    return tensors


def _find_weights(folder: Path, shards: list[str]) -> list[Path]:
    """Return the weight files of a folder. All of them must exist."""
    chosen = choose_weights([path.name for path in folder.glob(f"*{WEIGHTS_SUFFIX}")], shards)
    missing = _missing_shards(chosen, shards)
    if missing:
        listed = ", ".join(excerpt(name) for name in missing[:LISTED_NAMES])
        raise CheckpointError(f"{folder} lacks weight files: {listed}", "download or copy them")
    if not chosen:
        raise CheckpointError(
            f"{folder} has no weights: {WEIGHTS_FILE} is missing",
            "in a folder, only safetensors are supported: save .bin files as such with transformers, "
            "and name a .gguf file itself",
        )
    return [folder / name for name in chosen]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # reading it later raises an error with the reason
        return True


def _missing_shards(chosen: list[str], shards: list[str]) -> list[str]:
    """Return some of the shards that are missing, by the index or by the numbers of those that exist."""
    if set(chosen) & set(shards) or not chosen:
        return [name for name in shards if name not in chosen]
    last = NUMBERED_SHARD.fullmatch(chosen[-1])
    if last is None:
        return []
    total = last[2]
    expected = (f"model-{n:0{len(total)}}-of-{total}.safetensors" for n in range(1, int(total) + 1))
    return list(islice((name for name in expected if name not in chosen), LISTED_NAMES))
