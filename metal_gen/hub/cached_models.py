"""Lists the models in the Hub's cache, with their kind, size and last use.

Reads folders and config.json files only. Importing huggingface_hub's own scan takes longer than listing a
thousand models here, and that scan leaves out damaged models, which are what a user looks for.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.files.json_file import read_json
from metal_gen.hub.cache import cached_commits, cached_repositories, missing_files, reference_of
from metal_gen.models.config.summary import ConfigSummary

# Identifies a file that may have several names: device and inode.
_FileId = tuple[int, int]
# In the year 9999, the last year of a datetime.
_LATEST_S = 253_402_000_000


@dataclass(frozen=True, kw_only=True)
class CachedModel:
    """One commit of a model in the cache, or the remains of a model without a commit.

    Attributes:
        repo_id: `org/name`.
        folder: Folder of the commit; of the repository if there is no commit.
        commit: Commit hash; None if there are only partial files.
        names: Branches and tags that refer to the commit.
        size_bytes: Total size of the files, partial downloads included.
        used_s: Last access of a file that is not JSON, in seconds since 1970; None if there is no such file.
            Many file systems update access times only once a day.
        summary: Summary of config.json.
        missing: Files that are needed to load the model but are missing.
        problem: Why the model cannot be read; None if it can.
    """

    repo_id: str
    folder: Path
    commit: str | None = None
    names: tuple[str, ...] = ()
    size_bytes: int = 0
    used_s: float | None = None
    summary: ConfigSummary = field(default_factory=ConfigSummary)
    missing: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def reference(self) -> str:
        """The `--model` value that selects this commit."""
        return reference_of(self.repo_id, self.commit, self.names)

    @property
    def state(self) -> str:
        """`ready` (judged without reading the weights), `incomplete` or `unreadable`."""
        if self.problem is not None:
            return "unreadable"
        return "incomplete" if self.missing else "ready"


@dataclass(frozen=True)
class CacheContents:
    """The models of a cache, sorted by name, and the total size of their files, each counted once."""

    models: tuple[CachedModel, ...]
    size_bytes: int

    def matching(self, model: str) -> list[CachedModel]:
        """Return the commits that `org/name` or `org/name@revision` selects; empty if there are none."""
        repo_id, _, revision = model.partition("@")
        return [
            found
            for found in self.models
            if found.repo_id == repo_id and (not revision or revision in (found.commit, *found.names))
        ]


def cache_contents() -> CacheContents:
    """List every model in the cache; a model that cannot be read is listed with its problem.

    Raises:
        ConfigError: The cache itself cannot be read.
    """
    sizes: dict[_FileId, int] = {}
    models: list[CachedModel] = []
    for repo_id, folder in cached_repositories().items():
        try:
            models += _models_of(repo_id, folder, sizes)
        except OSError as error:
            problem = f"{excerpt(error.filename)} cannot be read: {error.strerror}"
            models.append(CachedModel(repo_id=repo_id, folder=folder, problem=problem))
    models.sort(key=lambda model: model.reference.casefold())
    return CacheContents(tuple(models), sum(sizes.values()))


def _models_of(repo_id: str, folder: Path, sizes: dict[_FileId, int]) -> list[CachedModel]:
    """Return one entry per commit, and add the sizes of all files to `sizes`."""
    parts, _ = _usage((folder / "blobs").glob("*.incomplete"))
    sizes |= parts
    models = []
    for commit, names in cached_commits(folder).items():
        snapshot = folder / "snapshots" / commit
        files, used_s = _usage(_files_under(snapshot))
        sizes |= files
        summary, problem = _read_summary(snapshot)
        missing: tuple[str, ...] = ()
        try:
            missing = tuple(missing_files(snapshot))
        except CheckpointError as error:
            problem = problem or error.message
        models.append(
            CachedModel(
                repo_id=repo_id,
                folder=snapshot,
                commit=commit,
                names=names,
                size_bytes=sum((files | parts if missing else files).values()),
                used_s=used_s,
                summary=summary,
                missing=missing,
                problem=problem,
            )
        )
    if models:
        return models
    missing = tuple(missing_files(folder))
    return [CachedModel(repo_id=repo_id, folder=folder, size_bytes=sum(parts.values()), missing=missing)]


def _usage(files: Iterable[Path]) -> tuple[dict[_FileId, int], float | None]:
    """Return the size of each file, and the last access of those that are not JSON."""
    sizes, used_s = {}, None
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError:  # a broken link
            continue
        sizes[status.st_dev, status.st_ino] = status.st_size
        # JSON files are also read to list a model, so their access time does not show use.
        if file.suffix != ".json" and 0 <= status.st_atime <= _LATEST_S:
            used_s = max(used_s or 0.0, status.st_atime)
    return sizes, used_s


def _files_under(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)


def _read_summary(snapshot: Path) -> tuple[ConfigSummary, str | None]:
    config = snapshot / "config.json"
    if not config.is_file():
        return ConfigSummary(), None
    try:
        return ConfigSummary.from_hf(read_json(config)), None
    except CheckpointError as error:
        return ConfigSummary(), error.message
