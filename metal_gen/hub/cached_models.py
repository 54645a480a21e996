"""The models in the Hub's cache: which there are, of what kind, how large, and when last used.

Looks into folders and config.json files only. huggingface_hub's own scan takes longer to import than
this takes for a thousand models, and leaves out what is damaged, which is what a person looks for.
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

# What identifies a file that several names may stand for: device and inode.
_FileId = tuple[int, int]
# In the year 9999, the last that a date can have.
_LATEST_S = 253_402_000_000


@dataclass(frozen=True, kw_only=True)
class CachedModel:
    """One commit of a model in the cache, or what is there of a model of which no commit is.

    Attributes:
        repo_id: `org/name`.
        folder: Of the commit, or of the repository where there is none.
        commit: Its hash; None where there are only parts of files.
        names: Branches and tags that stand for this commit.
        size_bytes: Of its files, and of parts of those that are still to come.
        used_s: When a file that is not JSON was last read, in seconds since 1970, as far as the file
            system notes that, which many do once a day; None where there is no such file.
        summary: What config.json says.
        missing: Files without which it cannot be loaded.
        problem: Why it cannot be read; None where it can.
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
        """What `--model` takes for it."""
        return reference_of(self.repo_id, self.commit, self.names)

    @property
    def state(self) -> str:
        """`ready`, as far as can be seen without the weights, or `incomplete`, or `unreadable`."""
        if self.problem is not None:
            return "unreadable"
        return "incomplete" if self.missing else "ready"


@dataclass(frozen=True)
class CacheContents:
    """The models of a cache, by name, and the bytes of all their files, each counted once."""

    models: tuple[CachedModel, ...]
    size_bytes: int

    def matching(self, model: str) -> list[CachedModel]:
        """Return every commit of `org/name`, or the one of `org/name@revision`; none that is not there."""
        repo_id, _, revision = model.partition("@")
        return [
            found
            for found in self.models
            if found.repo_id == repo_id and (not revision or revision in (found.commit, *found.names))
        ]


def cache_contents() -> CacheContents:
    """Look at every model in the cache; one that cannot be read does not hide the others.

    Raises:
        ConfigError: The cache itself may not be read.
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
    """One per commit; notes the size of every file that was found."""
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
    """The bytes of each file, and when the last of those that are not JSON was read."""
    sizes, used_s = {}, None
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError:  # a link to a file that is gone
            continue
        sizes[status.st_dev, status.st_ino] = status.st_size
        # JSON is read to list a model, not only to use it. A file system can note any time.
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
