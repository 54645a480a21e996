"""Selects the files of a repository that make up the checkpoint.

Imports huggingface_hub, so import this module only to query the Hub.
"""

from collections.abc import Callable
from dataclasses import dataclass

from metal_gen.errors import CheckpointError
from metal_gen.files.json_file import NotJsonError, parse_json
from metal_gen.files.weight_files import (
    MTP_FILE,
    WEIGHTS_INDEX,
    WEIGHTS_PATTERN,
    choose_weights,
    weight_map_of,
)
from metal_gen.hub.answers import fetch, file_url, read_listing
from metal_gen.hub.cache import REQUIRED_FILES
from metal_gen.hub.reference import HubModel

MOST_INDEX_BYTES = 64 << 20
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
    """The files of one commit that make up the checkpoint.

    Attributes:
        commit: Commit hash.
        small_files: Size in bytes of each file except the weights; None if the Hub does not give it.
        weights: Size in bytes of each weight file; None if the Hub does not give it.
    """

    commit: str
    small_files: dict[str, int | None]
    weights: dict[str, int | None]

    @property
    def files(self) -> dict[str, int | None]:
        """All files, with their sizes."""
        return self.small_files | self.weights


def plan_download(model: HubModel, read_index: Callable[[HubModel, str], dict[str, str]]) -> DownloadPlan:
    """Query the Hub for the files that make up the checkpoint.

    Args:
        model: The repository and the revision.
        read_index: Returns the weight index of a commit; called if there is one.

    Raises:
        CheckpointError: The repository has no loadable checkpoint.
        ModelNotFoundError: The server that answers is not a Hub.
        RefusedError: The Hub answers with an error status.
    """
    listing = read_listing(model)
    shards: list[str] = []
    if WEIGHTS_INDEX in listing.sizes:
        shards = sorted(set(read_index(model, listing.commit).values()))
    weights = choose_weights(listing.sizes, shards)
    lacking = [name for name in REQUIRED_FILES if name not in listing.sizes]
    if not weights:
        lacking.append(WEIGHTS_PATTERN)
    if lacking:
        raise CheckpointError(
            f"not a checkpoint that can be loaded: {model} lacks {', '.join(lacking)}",
            "choose a repository with safetensors weights; ONNX and .bin files are not supported. Download a "
            "GGUF file first: hf download REPOSITORY FILE --local-dir .",
        )
    # The index of a checkpoint from `metal-gen convert` does not name it, and a run does not require it.
    weights = [*({MTP_FILE} & listing.sizes.keys()), *weights]
    return DownloadPlan(
        commit=listing.commit,
        small_files={name: listing.sizes[name] for name in _SMALL_FILES if name in listing.sizes},
        weights={name: listing.sizes[name] for name in weights},
    )


def fetch_index(model: HubModel, commit: str) -> dict[str, str]:
    """Fetch the weight index without storing it.

    Raises:
        CheckpointError: The index is invalid.
        RefusedError: The Hub answers with an error status.
    """
    source = f"{WEIGHTS_INDEX} of {model}"
    try:
        index = parse_json(fetch(file_url(model, commit, WEIGHTS_INDEX), MOST_INDEX_BYTES))
    except NotJsonError as error:
        raise CheckpointError(f"{source} {error}", "choose another repository, or tell its owner") from None
    return weight_map_of(index, source)
