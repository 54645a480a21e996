"""The Hub's local cache: finds the snapshot of a model, and the files it lacks.

Owns the layout `models--org--name/{refs,snapshots}` and the list of files that a checkpoint needs. Only reads
and does not use the network. Importing huggingface_hub's own lookup functions costs 160 ms. The code below
imports only huggingface_hub.constants: 4 ms, or 14 ms if typing and pathlib are not loaded yet.
"""

import errno
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from metal_gen.errors import ConfigError
from metal_gen.excerpt import excerpt
from metal_gen.files.bounded_file import read_bounded
from metal_gen.files.gguf_names import gguf_files
from metal_gen.files.safe_names import is_plain_name
from metal_gen.files.weight_files import WEIGHTS_FILE, WEIGHTS_INDEX, WEIGHTS_PATTERN, read_index
from metal_gen.hub.library import library_constants
from metal_gen.hub.reference import DEFAULT_REVISION, HubModel

REQUIRED_FILES = ("config.json", "tokenizer.json")
_REPO_PREFIX = "models--"
_NEAR = 0.75
_MOST_NAMES = 3
# A file under refs/ contains only a commit hash.
_MOST_NOTE_BYTES = 4096


def cache_folder() -> Path:
    """Return the folder of the Hub's cache; HF_HUB_CACHE and HF_HOME change it."""
    return Path(library_constants().HF_HUB_CACHE)


def free_bytes() -> int:
    """Return the free bytes on the disk of the cache; the cache need not exist yet.

    Raises:
        ConfigError: The cache cannot be read.
    """
    folder = cache_folder()
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        return shutil.disk_usage(nearest).free
    except OSError as error:
        raise unreadable(error) from None


def cached_snapshot(model: HubModel) -> Path | None:
    """Return the folder of the model's snapshot, complete or not; None if nothing is cached.

    Args:
        model: The repository; its revision is a commit hash, or a name recorded under `refs`.

    Raises:
        ConfigError: The cache cannot be read.
    """
    note = reference_file(model)
    try:
        commit = read_bounded(note, _MOST_NOTE_BYTES).decode().strip() if note.is_file() else model.revision
        # A commit must be a plain folder name: anything else could point outside the cache.
        snapshot = snapshot_folder(model, commit) if is_plain_name(commit) else None
        return snapshot if snapshot is not None and snapshot.is_dir() else None
    except UnicodeDecodeError:
        return None
    except OSError as error:
        raise unreadable(error) from None


def reference_file(model: HubModel) -> Path:
    """Return the file in which the cache records the commit of the model's revision."""
    return _repo_folder(model) / "refs" / model.revision


def snapshot_folder(model: HubModel, commit: str) -> Path:
    """Return the folder of a commit in the cache, whether or not it exists."""
    return _repo_folder(model) / "snapshots" / commit


def _repo_folder(model: HubModel) -> Path:
    return cache_folder() / (_REPO_PREFIX + model.repo_id.replace("/", "--"))


def missing_files(folder: Path) -> list[str]:
    """Return the files that a folder lacks to be loaded; an empty list means that it is complete.

    The weights are complete if model.safetensors exists, or every file that the index names, or any
    model*.safetensors if there is no index or none of the files it names.

    Raises:
        CheckpointError: The index cannot be read.
    """
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if (folder / WEIGHTS_FILE).is_file():
        return missing
    shards = sorted(set(read_index(folder / WEIGHTS_INDEX).values()))
    absent = [name for name in shards if not (folder / name).is_file()]
    if len(absent) < len(shards):
        return missing + absent
    if not any(path.is_file() for path in folder.glob(WEIGHTS_PATTERN)):
        missing += shards or [WEIGHTS_PATTERN]
    return missing


def cached_gguf_file(model: HubModel) -> Path | None:
    """Return the first GGUF file, by name, that the cache has of a repository."""
    snapshot = cached_snapshot(model)
    files = gguf_files(snapshot) if snapshot else []
    return files[0] if files else None


def near_matches(asked: str) -> list[str]:
    """Return up to three cached models whose names resemble the one asked for, nearest first."""
    asked = asked.partition("@")[0].casefold().strip("./~\\")
    names = {reference.partition("@")[0] for reference in cached_references()}
    scores = {name: _likeness(asked, name.casefold()) for name in names}
    near = [name for name in scores if scores[name] >= _NEAR]
    return sorted(near, key=lambda name: (-scores[name], name))[:_MOST_NAMES]


def _likeness(asked: str, name: str) -> float:
    from difflib import SequenceMatcher

    # The right name under another organization counts as near; so does the name without one.
    whole = SequenceMatcher(None, asked, name).ratio()
    last_part = SequenceMatcher(None, asked.rpartition("/")[2], name.rpartition("/")[2]).ratio()
    return max(whole, 0.99 * last_part)


def cached_repositories() -> dict[str, Path]:
    """Return the folders of all model repositories in the cache, by repository id.

    Raises:
        ConfigError: The cache cannot be read.
    """
    root = cache_folder()
    try:
        folders = [path for path in root.iterdir() if path.name.startswith(_REPO_PREFIX) and path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise unreadable(error) from None
    return {path.name.removeprefix(_REPO_PREFIX).replace("--", "/"): path for path in sorted(folders)}


def cached_commits(repository: Path) -> dict[str, tuple[str, ...]]:
    """Return the commits in a repository's folder, each with the branches and tags that refer to it."""
    try:
        commits = sorted(path.name for path in (repository / "snapshots").iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    refs = repository / "refs"
    named = {path.relative_to(refs).as_posix(): _note(path) for path in sorted(refs.rglob("*"))}
    return {commit: tuple(name for name in named if named[name] == commit) for commit in commits}


def _note(path: Path) -> str | None:
    """Return the commit that a file under `refs` records; None if it cannot be read."""
    try:
        return read_bounded(path, _MOST_NOTE_BYTES).decode(errors="replace").strip()
    except OSError:
        return None


def cached_references() -> list[str]:
    """Return the `--model` value of every readable snapshot in the cache, complete or not."""
    references = []
    with suppress(ConfigError):
        for repo_id, folder in cached_repositories().items():
            with suppress(OSError):
                commits = cached_commits(folder).items() if "/" in repo_id else ()
                references += [reference_of(repo_id, commit, names) for commit, names in commits]
    return references


def reference_of(repo_id: str, commit: str | None, names: Collection[str]) -> str:
    """Return the `--model` value of a commit: the repository id, with a revision unless it is the default."""
    if commit is None or DEFAULT_REVISION in names:
        return repo_id
    return f"{repo_id}@{min(names, default=commit)}"


def unreadable(error: OSError) -> ConfigError:
    """Return the error of a cache that cannot be read."""
    what = excerpt(error.filename)
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(f"the cache cannot be read: {what}", "set HF_HOME to a folder that you own")
    return ConfigError(f"the cache cannot be read: {what}: {error.strerror}", "set HF_HOME to another folder")
