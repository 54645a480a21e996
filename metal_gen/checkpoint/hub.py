"""Where a checkpoint is: a local folder, a snapshot in the Hub's cache, or one to be downloaded.

Owns the order in which they are tried. Imports nothing of huggingface_hub for a local folder, its constants
alone (4 ms) for a cached model, and the library (200 ms) only to download. Prints nothing.
"""

from pathlib import Path

from metal_gen.checkpoint.download_progress import DownloadProgress, ProgressCallback
from metal_gen.checkpoint.hub_cache import cached_snapshot, missing_files, near_matches
from metal_gen.checkpoint.model_reference import HubModel, LocalFolder, parse_model_reference
from metal_gen.errors import MetalGenError, ModelNotFoundError

__all__ = ["DownloadProgress", "ProgressCallback", "locate_checkpoint"]


def locate_checkpoint(model: str, *, on_progress: ProgressCallback | None = None) -> Path:
    """Return the folder that holds a checkpoint, after downloading what the cache lacks of it.

    A cached snapshot that is complete is returned as it is: the Hub is not asked whether it has moved on.
    An incomplete one is completed; files that are whole are not fetched again.

    Args:
        model: A folder, or `org/name[@revision]`.
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
    if isinstance(reference, LocalFolder):
        return reference.path
    snapshot = cached_snapshot(reference)
    missing = missing_files(snapshot) if snapshot is not None else []
    if snapshot is not None and not missing:
        return snapshot

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _offline_miss(reference, missing)

    from metal_gen.checkpoint.hub_download import download_checkpoint

    return download_checkpoint(reference, on_progress)


def _parse(model: str) -> LocalFolder | HubModel:
    try:
        return parse_model_reference(model)
    except ModelNotFoundError as miss:
        near = near_matches(model)
        if not near:
            raise
        raise ModelNotFoundError(miss.message, f"in the cache: {', '.join(near)}; {miss.hint}") from None


def _offline_miss(model: HubModel, missing: list[str]) -> MetalGenError:
    if missing:
        return ModelNotFoundError(
            f"cached model is incomplete, and HF_HUB_OFFLINE is set: {model} lacks {', '.join(missing)}",
            "unset HF_HUB_OFFLINE and run again: what is there already is not fetched again",
        )
    way_out = "unset HF_HUB_OFFLINE to download it"
    near = near_matches(model.repo_id)
    if near:
        way_out = f"in the cache: {', '.join(near)}; or {way_out}"
    return ModelNotFoundError(f"model is not in the cache, and HF_HUB_OFFLINE is set: {model}", way_out)
