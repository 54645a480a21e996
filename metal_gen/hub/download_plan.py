"""Which files of a repository make the checkpoint.

Imports huggingface_hub, so it is itself imported only to ask the Hub.
"""

from collections.abc import Callable
from dataclasses import dataclass

from metal_gen.errors import CheckpointError
from metal_gen.files.json_file import NotJsonError, parse_json
from metal_gen.files.weight_files import (
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
    """The files of one commit that make the checkpoint.

    Attributes:
        commit: Its hash.
        small_files: Their sizes in bytes; None where the Hub says none.
        weights: Likewise.
    """

    commit: str
    small_files: dict[str, int | None]
    weights: dict[str, int | None]

    @property
    def files(self) -> dict[str, int | None]:
        """All of them."""
        return self.small_files | self.weights


def plan_download(model: HubModel, read_index: Callable[[HubModel, str], dict[str, str]]) -> DownloadPlan:
    """Ask the Hub which files make the checkpoint.

    Args:
        model: The repository and the revision.
        read_index: Gets the index of the weights, of a commit, where there is one.

    Raises:
        CheckpointError: The repository holds no checkpoint of the kind that can be loaded.
        ModelNotFoundError: What answers is no Hub.
        RefusedError: The Hub says no.
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
            "choose a repository with safetensors weights; ONNX and .bin files are not read, and a GGUF file "
            "is to be downloaded first: hf download REPOSITORY FILE --local-dir .",
        )
    return DownloadPlan(
        commit=listing.commit,
        small_files={name: listing.sizes[name] for name in _SMALL_FILES if name in listing.sizes},
        weights={name: listing.sizes[name] for name in weights},
    )


def fetch_index(model: HubModel, commit: str) -> dict[str, str]:
    """Read the index of the weights without keeping it.

    Raises:
        CheckpointError: It is none.
        RefusedError: The Hub says no.
    """
    source = f"{WEIGHTS_INDEX} of {model}"
    try:
        index = parse_json(fetch(file_url(model, commit, WEIGHTS_INDEX), MOST_INDEX_BYTES))
    except NotJsonError as error:
        raise CheckpointError(f"{source} {error}", "choose another repository, or tell its owner") from None
    return weight_map_of(index, source)
