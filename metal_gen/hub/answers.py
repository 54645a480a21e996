"""Sends requests to the Hub; reads a bounded number of bytes of each answer."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from huggingface_hub import get_session, hf_hub_url
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from metal_gen.byte_sizes import format_bytes
from metal_gen.excerpt import excerpt
from metal_gen.files.json_file import NotJsonError, parse_json
from metal_gen.files.safe_names import is_commit, is_plain_name
from metal_gen.hub.library import library_constants
from metal_gen.hub.reference import HubModel
from metal_gen.hub.session import unusable

MOST_LISTING_BYTES = 32 << 20
# Far more than file systems and the Hub itself allow.
MOST_FILE_BYTES = 1 << 60


class RefusedError(Exception):
    """The Hub answers with an error status.

    Attributes:
        status: HTTP status code.
        headers: Headers of the answer.
    """

    def __init__(self, status: int, headers: Any) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers


@dataclass(frozen=True)
class Listing:
    """The files of a revision.

    Attributes:
        commit: Hash of the commit that the revision refers to.
        sizes: Size in bytes of each file at the top of the repository; None if the Hub does not give it.
    """

    commit: str
    sizes: dict[str, int | None]


def read_listing(model: HubModel) -> Listing:
    """Fetch the list of a revision's files.

    Raises:
        ModelNotFoundError: The answer is not a list of the files of a commit.
        RefusedError: The revision does not exist, or access is denied.
    """
    endpoint = library_constants().ENDPOINT
    url = f"{endpoint}/api/models/{model.repo_id}/revision/{quote(model.revision, safe='')}?blobs=True"
    try:
        listing = parse_json(fetch(url, MOST_LISTING_BYTES))
    except NotJsonError as error:
        raise unusable(f"it {error}") from None
    if not isinstance(listing, dict):
        raise unusable("it is not a list of files")
    commit, files = listing.get("sha"), listing.get("siblings")
    if not is_commit(commit):
        raise unusable("it names no commit")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise unusable("it is not a list of files")
    # Skip files in subfolders and files with unusual names: they are never requested.
    plain = {file["rfilename"]: file.get("size") for file in files if is_plain_name(file.get("rfilename"))}
    for name, size in plain.items():
        if size is not None and not (type(size) is int and 0 <= size <= MOST_FILE_BYTES):
            raise unusable(f"it gives no size of {excerpt(name)}")
    return Listing(commit, plain)


def file_url(model: HubModel, commit: str, name: str) -> str:
    """Return the URL of a file on the Hub."""
    assert is_plain_name(name)
    return hf_hub_url(model.repo_id, name, revision=commit)


def fetch(url: str, most_bytes: int) -> bytes:
    """Return a whole answer.

    Raises:
        ModelNotFoundError: The answer is longer than allowed.
        RefusedError: The status is an error.
    """
    data, _ = fetch_beginning(url, most_bytes + 1, is_ranged=False)
    if len(data) > most_bytes:
        raise unusable(f"it has more than {format_bytes(most_bytes)}")
    return data


def fetch_beginning(url: str, count: int, *, is_ranged: bool = True) -> tuple[bytes, int | None]:
    """Return the first bytes of a file, and its whole size if the answer gives it.

    Stops reading after `count` bytes, even if the server sends the whole file.

    Args:
        url: URL of the file.
        count: Maximum number of bytes.
        is_ranged: Request only these bytes, with a Range header.

    Raises:
        RefusedError: The status is an error.
    """
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if is_ranged:
        headers["Range"] = f"bytes=0-{count - 1}"
    data = bytearray()
    timeout_s = library_constants().HF_HUB_ETAG_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout_s) as answer:
        if not 200 <= answer.status_code < 300:
            raise RefusedError(answer.status_code, answer.headers)
        for piece in answer.iter_bytes():
            data += piece
            if len(data) >= count:
                break
        return bytes(data[:count]), _whole_size(answer)


def _whole_size(answer: Any) -> int | None:
    if answer.status_code == 206:
        size = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        size = answer.headers.get("Content-Length", "")
    return int(size) if size.isascii() and size.isdigit() and int(size[:20]) <= MOST_FILE_BYTES else None
