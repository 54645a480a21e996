"""Translates the exceptions of huggingface_hub into sentences with a hint.

An exception that is not listed here is passed on unchanged: a traceback says more than a sentence that
guesses.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from huggingface_hub.errors import FileMetadataError, HfHubHTTPError

from metal_gen.device.limits import room_advice
from metal_gen.errors import ConfigError, DoesNotFitError, MetalGenError, ModelNotFoundError
from metal_gen.hub.answers import RefusedError
from metal_gen.hub.cache import cache_folder, near_matches
from metal_gen.hub.library import endpoint
from metal_gen.hub.reference import HubModel

_TOKEN_REFUSED = "Invalid credentials in Authorization header"
_DISABLED = "Access to this resource is disabled."
MAKE_ROOM = "make room (`metal-gen models list` shows the cached models), or set HF_HOME to another disk"
_RUN_AGAIN = "run the same command again"
_RUN_AGAIN_TO_GO_ON = f"{_RUN_AGAIN}: complete files are kept"


@contextmanager
def hub_errors_explained(model: HubModel, *, keeps_files: bool = True) -> Iterator[None]:
    """Translate the library's exceptions in the block into the errors to show.

    Args:
        model: As for `explain_hub_error`.
        keeps_files: As for `explain_hub_error`.
    """
    try:
        yield
    except Exception as error:
        known = explain_hub_error(error, model, keeps_files=keeps_files)
        if known is None:
            raise
        raise known from error


def explain_hub_error(error: Exception, model: HubModel, *, keeps_files: bool = True) -> MetalGenError | None:
    """Return the error to show for an exception; None if it is unknown or already a MetalGenError.

    Args:
        error: The exception. Its causes are checked too, because the library wraps network errors.
        model: The requested model.
        keeps_files: Whether files received so far stay in the cache.
    """
    for cause in _causes(error):
        known = (
            _explain_answer(cause, model)
            or _explain_network(cause, model, keeps_files=keeps_files)
            or _explain_disk(cause, model)
        )
        if known is not None:
            return known
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None and not isinstance(link, MetalGenError):
        yield link
        link = link.__cause__


def _explain_answer(error: BaseException, model: HubModel) -> MetalGenError | None:
    if isinstance(error, RefusedError):
        return _explain_status(error.status, error.headers, model)
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error.response.status_code, error.response.headers, model)
    if isinstance(error, FileMetadataError):
        return ModelNotFoundError(
            f"no Hub answers at this address: {endpoint()}",
            "check HF_ENDPOINT and the proxy settings",
        )
    if isinstance(error, ValueError) and "too large to be downloaded using the regular" in str(error):
        return ModelNotFoundError(
            f"a file of {model} is too large for a plain download",
            "unset HF_HUB_DISABLE_XET; or install the package for large files: pip install hf_xet",
        )
    return None


def _explain_status(status: int, headers: Mapping[str, str], model: HubModel) -> MetalGenError:
    code, reason = headers.get("X-Error-Code"), headers.get("X-Error-Message")
    page = f"{endpoint()}/{model.repo_id}"
    if code == "GatedRepo":
        return ModelNotFoundError(
            f"access to a gated model refused: {model}",
            f"accept its terms at {page}, then `hf auth login` or HF_TOKEN with a token of that account",
        )
    if code == "RevisionNotFound":
        return ModelNotFoundError(
            f"no such revision on the Hub: {model}", f"its branches and tags: {page}/tree/main"
        )
    if reason == _DISABLED:
        return ModelNotFoundError(f"model is disabled on the Hub: {model}", f"the reason may be at {page}")
    if status == 401 and reason == _TOKEN_REFUSED:
        return ModelNotFoundError(
            f"the Hub does not accept the token: {model}", "`hf auth login` again, or correct HF_TOKEN"
        )
    # With status 401 the Hub does not say whether the repository is private or does not exist.
    if code == "RepoNotFound" or status in (401, 404):
        return _no_such_model(model)
    if status == 403:
        return ModelNotFoundError(
            f"the token has no access: {model}", "`hf auth login` with a token that may read this repository"
        )
    if status == 429:
        return ModelNotFoundError(
            f"too many requests to the Hub: {model}",
            "wait some minutes; with `hf auth login` the limit is higher",
        )
    if status >= 500:
        return ModelNotFoundError(f"the Hub failed with HTTP {status}: {model}", _RUN_AGAIN)
    return ModelNotFoundError(
        f"the Hub refuses with HTTP {status}: {model}",
        f"check HF_ENDPOINT, {endpoint()}, and the proxy settings",
    )


def _no_such_model(model: HubModel) -> ModelNotFoundError:
    near = near_matches(model.repo_id)
    cached = f"in the cache: {', '.join(near)}; " if near else ""
    return ModelNotFoundError(
        f"no such model on the Hub, or a private one: {model.repo_id}",
        f"{cached}check the spelling; a private model needs `hf auth login` or HF_TOKEN",
    )


def _explain_network(error: BaseException, model: HubModel, *, keeps_files: bool) -> MetalGenError | None:
    # Compare names: huggingface_hub 1 raises httpx's classes, huggingface_hub 2 httpx2's; we import neither.
    names = {kind.__name__ for kind in type(error).__mro__}
    if (isinstance(error, UnicodeEncodeError) and error.encoding == "ascii") or "LocalProtocolError" in names:
        return ConfigError(
            "the request to the Hub cannot be sent: the token contains invalid characters",
            "correct HF_TOKEN, or unset it and run `hf auth login`",
        )
    if names & {"InvalidURL", "UnicodeError"}:
        return ConfigError(
            f"not a Hub address: {endpoint()}", "correct or unset HF_ENDPOINT; check the proxy settings"
        )
    if "TooManyRedirects" in names:
        return ModelNotFoundError(
            f"the Hub redirects in a loop: {endpoint()}", "check HF_ENDPOINT and the proxy settings"
        )
    if names & {"ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol"}:
        return ModelNotFoundError(
            f"the Hub cannot be reached: {endpoint()}",
            f"check the connection, the proxy and HF_ENDPOINT, and {_RUN_AGAIN}",
        )
    cut_short = type(error) is OSError and str(error).startswith("Consistency check failed")
    # hf_xet, which transfers most files, has no exception class for this.
    xet_gave_up = isinstance(error, RuntimeError) and "CAS Client Error" in str(error)
    if names & {"TransportError", "DecodingError", "StreamError"} or cut_short or xet_gave_up:
        when = "during the download" if keeps_files else "while the file headers were read"
        hint = _RUN_AGAIN_TO_GO_ON if keeps_files else _RUN_AGAIN
        return ModelNotFoundError(f"the connection to the Hub broke {when}: {model}", hint)
    return None


def _explain_disk(error: BaseException, model: HubModel) -> MetalGenError | None:
    xet_is_full = isinstance(error, RuntimeError) and os.strerror(errno.ENOSPC) in str(error)
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT) or xet_is_full:
        return DoesNotFitError(
            f"the disk became full during the download of {model}: {cache_folder()}",
            room_advice(MAKE_ROOM),
        )
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ConfigError(
            f"the cache cannot be written to: {cache_folder()}", "set HF_HOME to a folder that you own"
        )
    return None
