"""Fetches the parts of a Hub model that determine its size, without its weights.

Imports huggingface_hub, so import this module only to query the Hub.
"""

import os
from pathlib import Path

from metal_gen.errors import ModelNotFoundError
from metal_gen.excerpt import excerpt
from metal_gen.files.safetensors_header import MAX_HEADER_BYTES
from metal_gen.files.weight_files import WEIGHTS_INDEX
from metal_gen.hub.answers import fetch, fetch_beginning, file_url
from metal_gen.hub.download_plan import MOST_INDEX_BYTES, fetch_index, plan_download
from metal_gen.hub.errors import hub_errors_explained
from metal_gen.hub.reference import HubModel
from metal_gen.hub.session import hub_session, unusable
from metal_gen.hub.watch import run_watched

JSON_FILES = ("config.json", "generation_config.json", WEIGHTS_INDEX)
# Nearly every header fits.
FIRST_BYTES = 100_000
# Limit for all headers together: ten times what the largest models have.
MOST_HEADER_BYTES = 256 << 20


def fetch_headers(model: HubModel, folder: Path) -> None:
    """Fill a folder with a checkpoint whose weights are sparse files, which take no disk space.

    Args:
        model: The repository and the revision.
        folder: An empty temporary folder; the cache is not changed.

    Raises:
        MetalGenError: As for `locate_checkpoint`.
    """
    with hub_errors_explained(model, keeps_files=False), hub_session() as session:
        run_watched(lambda: _fill(model, folder), lambda: session.received_bytes, session.stop)


def _fill(model: HubModel, folder: Path) -> None:
    plan = plan_download(model, fetch_index)
    for name in JSON_FILES:
        if name in plan.small_files:
            content = fetch(file_url(model, plan.commit, name), MOST_INDEX_BYTES)
            (folder / name).write_bytes(content)
    left_bytes = MOST_HEADER_BYTES
    for name, listed_bytes in plan.weights.items():
        header, stored_bytes = _header(file_url(model, plan.commit, name))
        left_bytes -= len(header)
        if left_bytes < 0:
            raise unusable("the headers of its weights are larger than those of any known model")
        file_bytes = stored_bytes if listed_bytes is None else listed_bytes
        if file_bytes is None:
            raise ModelNotFoundError(
                f"the Hub does not say how large {excerpt(name)} of {model} is",
                "download it with `metal-gen models pull`, then plan again",
            )
        (folder / name).write_bytes(header)
        try:
            os.truncate(folder / name, file_bytes)
        except OSError:
            raise unusable(f"it makes {excerpt(name)} larger than any file: {file_bytes:,} bytes") from None


def _header(url: str) -> tuple[bytes, int | None]:
    """Return the start of a safetensors file (8 length bytes and the header), and the file's size."""
    data, file_bytes = fetch_beginning(url, FIRST_BYTES)
    length = 8 + min(int.from_bytes(data[:8], "little"), MAX_HEADER_BYTES)
    if length > len(data) == FIRST_BYTES:
        data, _ = fetch_beginning(url, length)
    return data[:length], file_bytes
