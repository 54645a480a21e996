"""The connection to the Hub; checks the headers of every answer before the library makes paths of them.

huggingface_hub names cache files after values from headers: a commit, an ETag, a hash. A mirror, or an
attacker on an unencrypted connection, can send any value.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import close_session, get_session, set_client_factory
from huggingface_hub.utils import _http

from metal_gen.errors import ConfigError, ModelNotFoundError
from metal_gen.excerpt import excerpt
from metal_gen.files.safe_names import is_commit, is_plain_name
from metal_gen.hub.download_progress import DownloadCancelledError
from metal_gen.hub.library import endpoint
from metal_gen.hub.quiet import library_kept_quiet

# With ".incomplete", ".lock" and a number appended, an ETag of this length still fits into a file name.
MOST_ETAG_BYTES = 128
_XET_HASH = re.compile(r"[0-9a-fA-F]{64}")
_RANGE = re.compile(r"bytes \d{1,18}-\d{1,18}/\d{1,18}", re.ASCII)
_WAITING = ("Retry-After", "RateLimit", "RateLimit-Policy")
_MOST_WAITING = re.compile(r"[\x20-\x7e]{0,100}")
_LONG_NUMBER = re.compile(r"\d{6,}")


class HubSession:
    """Counts received bytes, and can end all requests."""

    def __init__(self) -> None:
        self._answers: list[Any] = []
        self._is_stopped = False

    @property
    def received_bytes(self) -> int:
        """Bytes received in the bodies of all answers so far."""
        return sum(answer.num_bytes_downloaded for answer in tuple(self._answers))

    def stop(self) -> None:
        """Close the connections and make every later request raise."""
        self._is_stopped = True
        close_session()

    def add_to(self, client: Any) -> Any:
        """Add hooks to an httpx client that report its requests and answers to this session."""
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], self._before_request],
            "response": [*hooks["response"], self._before_body],
        }
        return client

    def _before_request(self, request: Any) -> None:
        if self._is_stopped:
            raise DownloadCancelledError

    def _before_body(self, answer: Any) -> None:
        if self._is_stopped:
            raise DownloadCancelledError
        self._answers.append(answer)
        check_headers(answer.request.method, answer.status_code, answer.headers)
        is_streamed = "/resolve/" in answer.request.url.path and answer.request.method == "GET"
        if answer.status_code >= 400 and is_streamed:
            # The library would read an error body of any length; the headers are enough.
            answer.close()


def check_headers(method: str, status: int, headers: Any) -> None:
    """Check the headers that the library uses.

    Args:
        method: Method of the request; the library names files after the answers to HEAD requests.
        status: Status of the answer.
        headers: Headers by name; an unreasonable waiting time, and a path that redirects nobody, are removed.

    Raises:
        ModelNotFoundError: A commit, a file name, an address or a range is invalid.
    """
    commit, hash_ = headers.get("X-Repo-Commit"), headers.get("X-Xet-Hash")
    if commit is not None and not is_commit(commit):
        raise unusable(f"it names a commit {excerpt(repr(commit))}")
    if hash_ is not None and not _XET_HASH.fullmatch(hash_):
        raise unusable(f"it names a hash {excerpt(repr(hash_))}")
    for name in ("X-Linked-Etag", "ETag") if method == "HEAD" else ():
        etag = headers.get(name)
        if etag is not None and not is_plain_name(_tag(etag), MOST_ETAG_BYTES):
            raise unusable(f"it names a version {excerpt(repr(etag))}")
    content_range = headers.get("Content-Range")
    if content_range is not None and status < 400 and not _RANGE.fullmatch(content_range):
        raise unusable(f"it gives a range {excerpt(repr(content_range))}")
    try:
        host = urlsplit(headers.get("Location", "")).netloc
    except ValueError:
        raise unusable("it redirects to an invalid address") from None
    # The library follows a path alone in a redirect, but takes it for a whole address in other answers.
    if "Location" in headers and not host and not 300 <= status < 400:
        del headers["Location"]
    for name in _WAITING:
        value = headers.get(name)
        if value is not None and (not _MOST_WAITING.fullmatch(value) or _LONG_NUMBER.search(value)):
            del headers[name]


def _tag(etag: str) -> str:
    return etag.removeprefix("W/").removeprefix('"').removesuffix('"')


def unusable(problem: str) -> ModelNotFoundError:
    """Return the error of an answer that a real Hub would not give."""
    return ModelNotFoundError(
        f"the answer of {endpoint()} cannot be used: {problem}",
        "check HF_ENDPOINT and the proxy settings: a real Hub does not answer like this",
    )


@contextmanager
def hub_session() -> Iterator[HubSession]:
    """Open a session that checks every answer of the library.

    Raises:
        ConfigError: The environment's connection settings are invalid.
    """
    session = HubSession()
    # The library has no public way to read the factory, which a program may have replaced.
    before: Callable[[], Any] = _http._GLOBAL_CLIENT_FACTORY
    set_client_factory(lambda: session.add_to(before()))
    try:
        with library_kept_quiet():
            _open_connections()
            yield session
    finally:
        set_client_factory(before)


def _open_connections() -> None:
    try:
        get_session()
    except Exception as error:  # certificates, proxies: anything that prevents creating a client
        raise ConfigError(
            f"the connection to the Hub cannot be set up: {excerpt(error)}",
            "check HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR",
        ) from error
