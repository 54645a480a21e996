"""Locates a checkpoint: a local folder, a snapshot in the Hub's cache, or a download.

Fixes the order in which these are tried. Imports nothing of huggingface_hub for a local folder, only its
constants (4 ms) for a cached model, and the library (200 ms) only to download. Prints nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from metal_gen.errors import CheckpointError, ModelNotFoundError, UsageError
from metal_gen.hub.cache import cached_gguf_file, cached_snapshot, missing_files, near_matches
from metal_gen.hub.download_progress import DownloadProgress, ProgressCallback
from metal_gen.hub.library import library_constants
from metal_gen.hub.reference import HubModel, LocalModel, parse_model_reference

__all__ = [
    "DownloadProgress",
    "ProgressCallback",
    "borrowed_headers",
    "find_checkpoint",
    "locate_checkpoint",
    "pull_checkpoint",
]
_OFFLINE = ", and HF_HUB_OFFLINE is set"


def find_checkpoint(model: str) -> Path:
    """Return the folder or the GGUF file of a checkpoint on this disk; never queries the Hub.

    Args:
        model: A folder, a GGUF file, or `org/name[@revision]`.

    Raises:
        UsageError: The string is neither a path nor a well-formed id.
        ModelNotFoundError: The folder does not exist, or the model is not in the cache or incomplete.
        ConfigError: The cache cannot be read.
    """
    reference = _parse(model)
    if isinstance(reference, LocalModel):
        return reference.path
    snapshot, missing = _look_in_cache(reference)
    if snapshot is None or missing:
        raise _miss(reference, missing, way_out=f"download it with `metal-gen models pull {reference}`")
    return snapshot


@contextmanager
def borrowed_headers(model: str) -> Iterator[Path]:
    """Provide a folder from which the headers of a checkpoint can be read.

    A model on this disk has its own folder. For any other model the headers are fetched from the Hub into a
    temporary folder; the cache is not changed.

    Args:
        model: A folder, a GGUF file, or `org/name[@revision]`.

    Raises:
        MetalGenError: As for `locate_checkpoint`.
    """
    reference = _parse(model)
    try:
        folder = find_checkpoint(model)
    except ModelNotFoundError:
        if isinstance(reference, LocalModel):
            raise
        if _is_offline():
            _, missing = _look_in_cache(reference)
            raise _miss(reference, missing, _OFFLINE, way_out="unset HF_HUB_OFFLINE to ask the Hub") from None
    else:
        yield folder
        return

    from metal_gen.hub.headers import fetch_headers

    with TemporaryDirectory(prefix="metal-gen-") as place:
        folder = Path(place, reference.repo_id.replace("/", "--"))
        folder.mkdir()
        fetch_headers(reference, folder)
        yield folder


def locate_checkpoint(model: str, *, on_progress: ProgressCallback | None = None) -> Path:
    """Return the folder of a checkpoint, after downloading what the cache lacks.

    A complete cached snapshot is returned as is; the Hub is not asked for updates. An incomplete snapshot is
    completed; complete files are not downloaded again.

    Args:
        model: A folder, a GGUF file, or `org/name[@revision]`.
        on_progress: Receives the progress of a download, from the download's threads, one call at a time.
            An exception from it ends the download.

    Returns:
        A folder. From the cache or the Hub, it holds config.json, tokenizer.json and the weights; the
        contents of a local folder are not checked.

    Raises:
        UsageError: The string is neither a path nor a well-formed id.
        ModelNotFoundError: The folder does not exist; or the model is not in the cache and the Hub does not
            have it, denies access, or cannot be reached.
        CheckpointError: The repository has no loadable checkpoint.
        DoesNotFitError: There is too little disk space (nothing was downloaded), or the disk became full.
        ConfigError: The cache cannot be read or written to.
    """
    reference = _parse(model)
    if isinstance(reference, LocalModel):
        return reference.path
    snapshot, missing = _look_in_cache(reference)
    if snapshot is not None and not missing:
        return snapshot
    return _download(reference, missing, on_progress)


def pull_checkpoint(model: str, *, on_progress: ProgressCallback | None = None) -> Path:
    """Update the cache's copy of a model from the Hub, and return its folder.

    Downloads the files that the cache lacks or has with a different size. With HF_HUB_OFFLINE, a complete
    copy is returned as is.

    Args:
        model: `org/name[@revision]`.
        on_progress: As for `locate_checkpoint`, which also documents the other exceptions.

    Raises:
        UsageError: The model is a local folder or file.
    """
    reference = _parse(model)
    if isinstance(reference, LocalModel):
        raise UsageError(
            f"cannot pull a local model: {model}",
            "give a Hub id: org/name, org/name@revision",
        )
    try:
        snapshot, missing = _look_in_cache(reference)
    except CheckpointError:  # the index is unreadable; a download may replace it
        if _is_offline():
            raise
        snapshot, missing = None, []
    if snapshot is not None and not missing and _is_offline():
        return snapshot
    return _download(reference, missing, on_progress)


def _parse(model: str) -> LocalModel | HubModel:
    """Parse a model string; the hint of an error names similar cached models.

    Raises:
        UsageError: The string is neither a path nor a well-formed id.
        ModelNotFoundError: The folder does not exist.
    """
    try:
        return parse_model_reference(model)
    except ModelNotFoundError as miss:
        near = near_matches(model)
        if not near:
            raise
        raise ModelNotFoundError(miss.message, f"in the cache: {', '.join(near)}; {miss.hint}") from None


def _look_in_cache(model: HubModel) -> tuple[Path | None, list[str]]:
    """Return the model's snapshot, if any, and the files that it lacks."""
    snapshot = cached_snapshot(model)
    return snapshot, [] if snapshot is None else missing_files(snapshot)


def _is_offline() -> bool:
    return bool(library_constants().HF_HUB_OFFLINE)


def _download(model: HubModel, missing: list[str], on_progress: ProgressCallback | None) -> Path:
    if _is_offline():
        raise _miss(model, missing, _OFFLINE, way_out="unset HF_HUB_OFFLINE to download it")

    from metal_gen.hub.download import download_checkpoint

    return download_checkpoint(model, on_progress)


def _miss(model: HubModel, missing: list[str], why: str = "", *, way_out: str) -> ModelNotFoundError:
    if missing:
        if file := cached_gguf_file(model):
            return ModelNotFoundError(
                f"the cached model has only GGUF files: {model} lacks {', '.join(missing)}",
                f"name the GGUF file itself: {file}",
            )
        return ModelNotFoundError(
            f"the cached model is incomplete{why}: {model} lacks {', '.join(missing)}",
            f"{way_out}; complete files are not downloaded again",
        )
    near = near_matches(model.repo_id)
    if near:
        way_out = f"in the cache: {', '.join(near)}; or {way_out}"
    return ModelNotFoundError(f"the model is not in the cache{why}: {model}", way_out)
