"""Downloading a checkpoint from the Hub into its cache, and no more than is needed of it.

Owns the choice of files, the look at the free disk, and the order: the weights come last, so that a snapshot
with its weights has the rest too. Imports huggingface_hub, 200 ms, so it is itself imported only to download.
Prints nothing.
"""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from huggingface_hub import HfApi, close_session, constants, hf_hub_download, snapshot_download
from huggingface_hub.utils.tqdm import tqdm

from metal_gen.byte_sizes import format_bytes
from metal_gen.errors import CheckpointError, DoesNotFitError, ModelNotFoundError
from metal_gen.files.weight_files import (
    WEIGHTS_INDEX,
    WEIGHTS_PATTERN,
    choose_weights,
    shards_in_index,
)
from metal_gen.hub.cache import REQUIRED_FILES, cache_folder, free_bytes, snapshot_folder
from metal_gen.hub.download_progress import ProgressCallback, ProgressMeter
from metal_gen.hub.errors import MAKE_ROOM, explain_hub_error
from metal_gen.hub.quiet import library_kept_quiet
from metal_gen.hub.reference import HubModel

_SMALL_FILES = (
    *REQUIRED_FILES,
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    WEIGHTS_INDEX,
)


@dataclass(frozen=True)
class DownloadPlan:
    """The files of one commit that make the checkpoint, each with its size in bytes."""

    commit: str
    small_files: dict[str, int]
    weights: dict[str, int]

    @property
    def files(self) -> dict[str, int]:
        """All of them."""
        return self.small_files | self.weights


def download_checkpoint(model: HubModel, on_progress: ProgressCallback | None) -> Path:
    """Download what the cache lacks of a model, and return its snapshot's folder.

    Args:
        model: The repository and the revision.
        on_progress: As for `locate_checkpoint`, whose Raises hold here too.
    """
    try:
        with library_kept_quiet():
            plan = plan_download(model)
            _check_free_disk(model, plan)
            return _download(model, plan, on_progress)
    except Exception as error:
        known = explain_hub_error(error, model)
        if known is None:
            raise
        raise known from error


def plan_download(model: HubModel, *, local_dir: Path | None = None) -> DownloadPlan:
    """Ask the Hub which files make the checkpoint.

    Args:
        model: The repository and the revision.
        local_dir: Where an index of the weights goes, which has to be read for this; by default the cache.
    """
    info = HfApi().model_info(
        model.repo_id, revision=model.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    commit = info.sha or model.revision
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    shards: list[str] = []
    if WEIGHTS_INDEX in sizes:
        shards = shards_in_index(_fetch_index(model, commit, local_dir))
    weights = choose_weights(sizes, shards)
    lacking = [name for name in REQUIRED_FILES if name not in sizes]
    if not weights:
        lacking.append(WEIGHTS_PATTERN)
    if lacking:
        raise CheckpointError(
            f"not a checkpoint that can be loaded: {model} lacks {', '.join(lacking)}",
            "choose a repository with safetensors weights; ONNX and .bin files are not read, and a GGUF file "
            "is to be downloaded first: hf download REPOSITORY FILE --local-dir .",
        )
    return DownloadPlan(
        commit=commit,
        small_files={name: sizes[name] for name in _SMALL_FILES if name in sizes},
        weights={name: sizes[name] for name in weights},
    )


def _fetch_index(model: HubModel, commit: str, local_dir: Path | None) -> Path:
    uncounted = _counting_bar(ProgressMeter(None, total_bytes=0, files_total=0))
    return Path(
        hf_hub_download(
            model.repo_id, WEIGHTS_INDEX, revision=commit, local_dir=local_dir, tqdm_class=uncounted
        )
    )


def _check_free_disk(model: HubModel, plan: DownloadPlan) -> None:
    needed_bytes = sum(plan.files[name] for name in _absent(plan.files, snapshot_folder(model, plan.commit)))
    left_bytes = free_bytes()
    if needed_bytes > left_bytes:
        raise DoesNotFitError(
            f"no room to download {model}: {format_bytes(needed_bytes)} needed, "
            f"{format_bytes(left_bytes)} free in {cache_folder()}",
            MAKE_ROOM,
        )


def _download(model: HubModel, plan: DownloadPlan, on_progress: ProgressCallback | None) -> Path:
    meter = ProgressMeter(on_progress, sum(plan.files.values()), len(plan.files))

    def fetch(names: Collection[str], revision: str, folder: Path, *, again: bool = False) -> Path:
        absent = _absent(plan.files, folder)
        present = plan.files.keys() - absent
        meter.begin_stage(sum(plan.files[name] for name in present), len(present))
        path = snapshot_download(
            model.repo_id,
            revision=revision,
            allow_patterns=[escape(name) for name in absent if name in names],
            force_download=again,
            tqdm_class=_counting_bar(meter),
        )
        return Path(path)

    def fetch_all() -> Path:
        folder = snapshot_folder(model, plan.commit)
        # What is there in another size the library would leave as it is.
        if damaged := [name for name in _absent(plan.files, folder) if (folder / name).is_file()]:
            fetch(damaged, plan.commit, folder, again=True)
        # By the revision's name first: that notes in the cache which commit the name stands for.
        folder = fetch(plan.small_files, model.revision, folder)
        return fetch(plan.weights, folder.name, folder)

    folder = _interruptible(fetch_all, meter)
    # The library returns an incomplete folder when the Hub goes away, or the branch moves, half-way.
    absent = _absent(plan.files, folder)
    if absent:
        raise ModelNotFoundError(
            f"download is incomplete: {model} lacks {', '.join(absent)}",
            "run the same command again: files that are whole are kept",
        )
    return folder


def _absent(sizes: dict[str, int], folder: Path) -> list[str]:
    """Name the files that a folder lacks, or has in another size; 0 is a size that the Hub does not say."""

    def is_whole(name: str) -> bool:
        path = folder / name
        return path.is_file() and sizes[name] in (0, path.stat().st_size)

    return [name for name in sizes if not is_whole(name)]


def _counting_bar(meter: ProgressMeter) -> type[tqdm]:
    class CountingBar(tqdm):
        """Stands in for the library's bars: draws nothing, counts for the meter."""

        monitor_interval = 0  # no watching thread for bars that are never drawn

        def __init__(self, *args: object, **kwargs: object) -> None:
            self.counts_bytes = kwargs.get("unit") == "B"
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # tqdm has no types

        def update(self, n: float | None = 1) -> None:
            if self.counts_bytes:
                meter.add_bytes(id(self), int(n or 0))
            else:
                meter.add_files(int(n or 0))

    return CountingBar


def _interruptible(fetch_all: Callable[[], Path], meter: ProgressMeter) -> Path:
    # The library waits for its threads to finish their files before Ctrl-C gets through. From a thread of
    # our own they can be told to stop: by the meter at the next chunk, by the closed connection before that.
    with ThreadPoolExecutor(max_workers=1) as background:
        download = background.submit(fetch_all)
        try:
            return download.result()
        except BaseException:
            if not download.done():
                meter.cancel()
                close_session()
            raise
