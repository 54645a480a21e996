"""Which files of a checkpoint hold its weights: one rule for a folder, the cache and the Hub."""

import json
import re
from collections.abc import Collection
from itertools import islice
from pathlib import Path

from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo, read_header

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
WEIGHTS_PATTERN = "model*.safetensors"
NUMBERED_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")
LISTED_NAMES = 6


def shards_in_index(index: Path) -> list[str]:
    """Return the weight files an index names, sorted; none when it is absent or cannot be read."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return sorted({str(name) for name in weight_map.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


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
    if shards and set(shards) <= set(names):
        return sorted(shards)
    if WEIGHTS_FILE in names:
        return [WEIGHTS_FILE]
    numbered = sorted(name for name in names if NUMBERED_SHARD.fullmatch(name))
    return numbered or sorted(name for name in names if "/" not in name and Path(name).match(WEIGHTS_PATTERN))


def find_weights(folder: Path) -> list[Path]:
    """Return the weight files of a folder.

    Raises:
        CheckpointError: There are none, or some of the shards are missing.
    """
    names = {path.name for path in folder.glob("*.safetensors")}
    shards = shards_in_index(folder / WEIGHTS_INDEX)
    chosen = choose_weights(names, shards)
    missing = _missing_shards(chosen, shards)
    if missing:
        listed = ", ".join(missing[:LISTED_NAMES])
        raise CheckpointError(f"{folder} lacks weight files: {listed}", "download or copy them")
    if not chosen:
        raise CheckpointError(
            f"{folder} has no weights: {WEIGHTS_FILE} is missing",
            "of folders only safetensors are read: save .bin files as such with transformers, "
            "and name a .gguf file itself",
        )
    return [folder / name for name in chosen]


def read_headers(folder: Path) -> dict[str, TensorInfo]:
    """List the tensors of a folder's weight files by name.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    tensors: dict[str, TensorInfo] = {}
    for path in find_weights(folder):
        tensors.update(read_header(path))
    return tensors


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
