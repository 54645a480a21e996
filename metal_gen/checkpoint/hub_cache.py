"""The Hub's cache on this disk: which snapshot a model has there, and what that snapshot lacks.

Owns the layout `models--org--name/{refs,snapshots}` and the list of files a checkpoint needs. Reads only;
knows nothing of the network. huggingface_hub's own look-up functions cost 160 ms to import, the walk below
costs the import of huggingface_hub.constants: 4 ms, 14 ms when nothing else has loaded typing and pathlib.
"""

from pathlib import Path

from metal_gen.checkpoint.model_reference import HubModel
from metal_gen.checkpoint.weight_files import WEIGHTS_FILE, WEIGHTS_INDEX, WEIGHTS_PATTERN, shards_in_index
from metal_gen.errors import ConfigError

REQUIRED_FILES = ("config.json", "tokenizer.json")
_REPO_PREFIX = "models--"
_NEAR = 0.75
_MOST_NAMES = 3


def cache_folder() -> Path:
    """Return the folder of the Hub's cache, which HF_HUB_CACHE and HF_HOME move."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_snapshot(model: HubModel) -> Path | None:
    """Return the folder of the model's snapshot, complete or not, or None when nothing is cached.

    Args:
        model: The repository; its revision is a commit's hash, or a name noted under `refs`.

    Raises:
        ConfigError: The cache may not be read.
    """
    ref = _repo_folder(model) / "refs" / model.revision
    try:
        commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else model.revision
        snapshot = snapshot_folder(model, commit)
        return snapshot if commit and snapshot.is_dir() else None
    except PermissionError as error:
        raise ConfigError(
            f"the cache cannot be read: {error.filename}", "set HF_HOME to a folder that you own"
        ) from None


def snapshot_folder(model: HubModel, commit: str) -> Path:
    """Return where a commit of the model belongs in the cache, whether or not it is there."""
    return _repo_folder(model) / "snapshots" / commit


def _repo_folder(model: HubModel) -> Path:
    return cache_folder() / (_REPO_PREFIX + model.repo_id.replace("/", "--"))


def missing_files(folder: Path) -> list[str]:
    """Name what a folder lacks to be loaded; an empty list means that it is complete.

    The weights are there when model.safetensors is, or every file that the index names, or any
    model*.safetensors when there is no index or none of the files it names.
    """
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if (folder / WEIGHTS_FILE).is_file():
        return missing
    shards = shards_in_index(folder / WEIGHTS_INDEX)
    absent = [name for name in shards if not (folder / name).is_file()]
    if len(absent) < len(shards):
        return missing + absent
    if not any(path.is_file() for path in folder.glob(WEIGHTS_PATTERN)):
        missing += shards or [WEIGHTS_PATTERN]
    return missing


def near_matches(asked: str) -> list[str]:
    """Return the cached models whose names resemble the one asked for, nearest first, three at most."""
    asked = asked.partition("@")[0].casefold().strip("./~\\")
    scores = {name: _likeness(asked, name.casefold()) for name in _cached_names()}
    near = [name for name in scores if scores[name] >= _NEAR]
    return sorted(near, key=lambda name: (-scores[name], name))[:_MOST_NAMES]


def _likeness(asked: str, name: str) -> float:
    from difflib import SequenceMatcher

    # The right name under another organisation counts as near; so does the name alone.
    whole = SequenceMatcher(None, asked, name).ratio()
    last_part = SequenceMatcher(None, asked.rpartition("/")[2], name.rpartition("/")[2]).ratio()
    return max(whole, 0.99 * last_part)


def _cached_names() -> set[str]:
    snapshots = cache_folder().glob(f"{_REPO_PREFIX}*--*/snapshots/*")
    folder_names = {path.parent.parent.name for path in snapshots}
    return {name.removeprefix(_REPO_PREFIX).replace("--", "/") for name in folder_names}
