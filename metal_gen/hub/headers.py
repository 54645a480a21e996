"""Fetches of a model on the Hub what tells its size, and nothing of its weights.

Imports huggingface_hub, so it is itself imported only to ask the Hub.
"""

import os
from pathlib import Path

from huggingface_hub import constants, get_session, hf_hub_download, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from metal_gen.files.safetensors_header import MAX_HEADER_BYTES
from metal_gen.hub.download import plan_download
from metal_gen.hub.errors import explain_hub_error
from metal_gen.hub.quiet import library_kept_quiet
from metal_gen.hub.reference import HubModel

JSON_FILES = ("config.json", "generation_config.json")
# Nearly every header fits into this.
FIRST_BYTES = 100_000


def fetch_headers(model: HubModel, folder: Path) -> None:
    """Fill a folder with a checkpoint whose weights are holes: they take no room on the disk.

    Args:
        model: The repository and the revision.
        folder: An empty one, to be thrown away; the cache is left as it is.

    Raises:
        MetalGenError: As for `locate_checkpoint`.
    """
    try:
        with library_kept_quiet():
            plan = plan_download(model, local_dir=folder)
            for name in JSON_FILES:
                if name in plan.small_files:
                    hf_hub_download(model.repo_id, name, revision=plan.commit, local_dir=folder)
            for name, size in plan.weights.items():
                (folder / name).write_bytes(_header(hf_hub_url(model.repo_id, name, revision=plan.commit)))
                os.truncate(folder / name, size)
    except Exception as error:
        known = explain_hub_error(error, model, keeps_files=False)
        if known is None:
            raise
        raise known from error


def _header(url: str) -> bytes:
    """The first bytes of a safetensors file: the length of its header, and the header."""
    data = _first_bytes(url, FIRST_BYTES)
    length = 8 + min(int.from_bytes(data[:8], "little"), MAX_HEADER_BYTES)
    return (data if length <= len(data) else _first_bytes(url, length))[:length]


def _first_bytes(url: str, count: int) -> bytes:
    """Stop reading where it is enough, should the server send the whole file."""
    headers = {**build_hf_headers(), "Range": f"bytes=0-{count - 1}"}
    data = b""
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_ETAG_TIMEOUT) as response:
        hf_raise_for_status(response)
        for piece in response.iter_bytes():
            data += piece
            if len(data) >= count:
                break
    return data[:count]
