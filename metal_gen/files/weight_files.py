"""Which files of a checkpoint hold its weights: one rule for a folder, the cache and the Hub."""

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
WEIGHTS_PATTERN = "model*.safetensors"
NUMBERED_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")
LISTED_NAMES = 6
# The largest models published have some hundreds.
MOST_FILES = 10_000


def read_index(index: Path) -> dict[str, str]:
    """Return the weight file of each tensor that an index names; nothing when there is no index.

    Raises:
        CheckpointError: It cannot be read, or names files that are not beside it.
    """
    return weight_map_of(read_json(index), str(index)) if _is_file(index) else {}


def weight_map_of(index: Any, source: str) -> dict[str, str]:
    """Return the weight file of each tensor that the content of an index names.

    Args:
        index: Of any type.
        source: What to call it in messages.

    Raises:
        CheckpointError: It is no index, or names files that are not beside it: they could be any of the
            machine's.
    """
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{source} is damaged: it has no weight_map", "download or copy the file again")
    for file in weight_map.values():
        if not is_plain_name(file):
            raise CheckpointError(
                f"{source} names no file next to it: {excerpt(repr(file))}",
                "choose a repository whose weights lie next to their index",
            )
    if len(set(weight_map.values())) > MOST_FILES:
        raise CheckpointError(f"{source} names more than {MOST_FILES:,} files")
    return weight_map


def choose_weights(names: Collection[str], shards: Collection[str]) -> list[str]:
    """Choose among a repository's files those that hold the weights.

    Published repositories carry stale indexes and stray files: the index counts only when every file it
    names exists, then comes the single file, then numbered shards, then whatever has the right name.

    Args:
        names: Every file in the repository.
        shards: The files its index names; empty without an index.

    Returns:
        The weight files, sorted; empty when the repository has none.
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

    Of a tensor that several files have, the one counts that is in the file which the index names.

    Raises:
        CheckpointError: A file is missing or damaged, or several files have a tensor and no index says
            which of them counts.
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
                "take away the file that is not of this model, or add the index",
            )
    return tensors


def _find_weights(folder: Path, shards: list[str]) -> list[Path]:
    """The files that are there, all of them."""
    chosen = choose_weights([path.name for path in folder.glob(f"*{WEIGHTS_SUFFIX}")], shards)
    missing = _missing_shards(chosen, shards)
    if missing:
        listed = ", ".join(excerpt(name) for name in missing[:LISTED_NAMES])
        raise CheckpointError(f"{folder} lacks weight files: {listed}", "download or copy them")
    if not chosen:
        raise CheckpointError(
            f"{folder} has no weights: {WEIGHTS_FILE} is missing",
            "of folders only safetensors are read: save .bin files as such with transformers, "
            "and name a .gguf file itself",
        )
    return [folder / name for name in chosen]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # which whoever reads it explains
        return True


def _missing_shards(chosen: list[str], shards: list[str]) -> list[str]:
    """Some of the shards that the index, or the numbers of those that are there, say are missing."""
    if set(chosen) & set(shards) or not chosen:
        return [name for name in shards if name not in chosen]
    last = NUMBERED_SHARD.fullmatch(chosen[-1])
    if last is None:
        return []
    total = last[2]
    expected = (f"model-{n:0{len(total)}}-of-{total}.safetensors" for n in range(1, int(total) + 1))
    return list(islice((name for name in expected if name not in chosen), LISTED_NAMES))
