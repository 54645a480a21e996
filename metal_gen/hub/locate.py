"""Where a checkpoint is: a local folder, a snapshot in the Hub's cache, or one to be downloaded.

Owns the order in which they are tried. Imports nothing of huggingface_hub for a local folder, its constants
alone (4 ms) for a cached model, and the library (200 ms) only to download. Prints nothing.
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
    """Return the folder, or the GGUF file, of a checkpoint that is on this disk; the Hub is never asked.

    Args:
        model: A folder, a GGUF file, or `org/name[@revision]`.

    Raises:
        UsageError: The string is no path and no well-formed id.
        ModelNotFoundError: No such folder; or the model is not in the cache, or not all of it.
        ConfigError: The cache cannot be read.
    """
    reference = _parse(model)
    if isinstance(reference, LocalModel):
        return reference.path
    snapshot, missing = _look_in_cache(reference)
    if snapshot is None or missing:
        raise _miss(reference, missing, way_out=f"`metal-gen models pull {reference}` downloads it")
    return snapshot


@contextmanager
def borrowed_headers(model: str) -> Iterator[Path]:
    """Give, for a while, the folder of a checkpoint of which nothing but headers is to be read.

    That of a model on this disk is its own. Of another one the Hub is asked, for headers only: the cache
    stays as it is.

    Args:
        model: A folder, a GGUF file, or `org/name[@revision]`.

    Raises:
        MetalGenError: As for `locate_checkpoint`.
    """
    reference = _parse(model)
    try:
        folder = find_checkpoint(model)
    except ModelNotFoundError:
        if isinstance(reference, LocalModel) or _is_offline():
            raise
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
    """Return the folder that holds a checkpoint, after downloading what the cache lacks of it.

    A cached snapshot that is complete is returned as it is: the Hub is not asked whether it has moved on.
    An incomplete one is completed; files that are whole are not fetched again.

    Args:
        model: A folder, a GGUF file, or `org/name[@revision]`.
        on_progress: Told how far a download is, from the download's threads but never by two at once.
            What it raises ends the download.

    Returns:
        A folder. One from the cache or the Hub holds config.json, tokenizer.json and the weights; a local
        one is not looked into.

    Raises:
        UsageError: The string is no path and no well-formed id.
        ModelNotFoundError: No such folder; or the model is not in the cache, and the Hub does not have it,
            does not give it, or cannot be reached.
        CheckpointError: The repository holds no checkpoint of the kind that can be loaded.
        DoesNotFitError: The disk has too little room; nothing was downloaded, or the disk became full.
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
    """Bring the cache's copy of a model to what the Hub has now, and return its folder.

    Files are fetched that the cache lacks, or has in another size than the Hub. With HF_HUB_OFFLINE a
    complete copy is returned as it is.

    Args:
        model: `org/name[@revision]`.
        on_progress: As for `locate_checkpoint`, whose Raises hold here too.

    Raises:
        UsageError: The model is a folder or a file.
    """
    reference = _parse(model)
    if isinstance(reference, LocalModel):
        raise UsageError(
            f"what is on this disk cannot be pulled: {model}",
            "give the Hub's id: org/name, org/name@revision",
        )
    try:
        snapshot, missing = _look_in_cache(reference)
    except CheckpointError:  # an index that cannot be read, which the Hub's may replace
        if _is_offline():
            raise
        snapshot, missing = None, []
    if snapshot is not None and not missing and _is_offline():
        return snapshot
    return _download(reference, missing, on_progress)


def _parse(model: str) -> LocalModel | HubModel:
    """Decide what a model string means; a miss names what the cache has that resembles it.

    Raises:
        UsageError: The string is no path and no well-formed id.
        ModelNotFoundError: No such folder.
    """
    try:
        return parse_model_reference(model)
    except ModelNotFoundError as miss:
        near = near_matches(model)
        if not near:
            raise
        raise ModelNotFoundError(miss.message, f"in the cache: {', '.join(near)}; {miss.hint}") from None


def _look_in_cache(model: HubModel) -> tuple[Path | None, list[str]]:
    """The model's snapshot, if there is one, and what it lacks."""
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
                f"cached model has no files but GGUF to load: {model} lacks {', '.join(missing)}",
                f"name the GGUF file itself: {file}",
            )
        return ModelNotFoundError(
            f"cached model is incomplete{why}: {model} lacks {', '.join(missing)}",
            f"{way_out}; what is there already is not fetched again",
        )
    near = near_matches(model.repo_id)
    if near:
        way_out = f"in the cache: {', '.join(near)}; or {way_out}"
    return ModelNotFoundError(f"model is not in the cache{why}: {model}", way_out)
