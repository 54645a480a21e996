"""Parses a model string: a folder or a GGUF file on this disk, or a repository on the Hub.

Defines the grammar of `--model`. Checks only whether a path exists; does not know the cache, the network or
huggingface_hub.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from metal_gen.errors import ModelNotFoundError, UsageError
from metal_gen.files.gguf_names import GGUF_SUFFIX

DEFAULT_REVISION = "main"
_ID_FORM = "a Hub id is org/name or org/name@revision"
_PATH_START = re.compile(r"[/.~]|[A-Za-z]:")
_ADDRESS = re.compile(r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)([^/?#]+/[^/?#]+)")
# The Hub's rules: letters, digits, - _ . in each part; no - or . at either end; at most 96 characters.
_ID_PART = re.compile(r"\w(?:[\w.-]*\w)?", re.ASCII)
_MAX_PART_LENGTH = 96
# ollama's name of a model, such as qwen3:0.6b or qwen3.5:27b-q8_0.
_OLLAMA_TAG = re.compile(r"qwen3(\.\d)?:(\d+(?:\.\d+)?b(?:-a\d+b)?)(?:-|$)", re.IGNORECASE)
_NOT_IN_A_REVISION = re.compile(r"[\x00-\x20\x7f~^:?*\[\\@\ud800-\udfff]|\.\.|//|^[/.]|[/.]$")
# Short enough for a file name in the cache.
_MAX_REVISION_BYTES = 250


@dataclass(frozen=True)
class LocalModel:
    """A folder or a GGUF file on this disk."""

    path: Path


@dataclass(frozen=True)
class HubModel:
    """A model repository on the Hub, at a branch, a tag or a commit."""

    repo_id: str
    revision: str = DEFAULT_REVISION

    def __str__(self) -> str:
        return self.repo_id if self.revision == DEFAULT_REVISION else f"{self.repo_id}@{self.revision}"


def parse_model_reference(model: str) -> LocalModel | HubModel:
    """Parse a model string, without the network and without the cache.

    A string is a path if it begins with `/`, `.`, `~` or a drive letter, contains a backslash, ends with `/`
    or `.gguf`, exists on disk, or does not have exactly one slash before an `@`. Anything else is a Hub id.

    Args:
        model: A folder, a `.gguf` file, or `org/name[@revision]`.

    Returns:
        An existing folder or file, or a repository with a well-formed id and revision.

    Raises:
        ModelNotFoundError: The string is a path, but no model is there or it is not readable.
        UsageError: The string is empty, or is an id that the Hub would not accept.
    """
    if not model.strip():
        raise UsageError(f"no model named: {model!r}", f"give a folder, or a Hub id; {_ID_FORM}")
    path = _expand_home(model)
    exists, is_folder = _look_at(path)
    if is_folder or (exists and path.suffix.lower() == GGUF_SUFFIX):
        return LocalModel(path)
    if exists:
        raise ModelNotFoundError(
            f"model is a file, not a folder: {model}",
            "give the folder that holds config.json, tokenizer.json and the *.safetensors files; "
            f"the only files that can be loaded are {GGUF_SUFFIX} files",
        )
    if _looks_like_a_path(model):
        raise _no_such_folder(model)
    repo_id, at, revision = model.partition("@")
    _check_repo_id(repo_id)
    if not at:
        return HubModel(repo_id)
    _check_revision(model, revision)
    return HubModel(repo_id, revision)


def is_on_disk(model: str) -> bool:
    """Return whether a model string is an existing path of any kind.

    Raises:
        ModelNotFoundError: There is no permission to look.
    """
    return _look_at(_expand_home(model))[0]


def _expand_home(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except (RuntimeError, ValueError):  # "~name" of an unknown user
        return Path(model)


def _look_at(path: Path) -> tuple[bool, bool]:
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except PermissionError:
        raise _not_readable(path) from None
    except (OSError, ValueError):  # not a valid file name
        return False, False
    if is_folder and not os.access(path, os.R_OK | os.X_OK):
        raise _not_readable(path)
    return exists, is_folder


def _not_readable(folder: Path) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"folder is not readable: {folder}", "give a folder that you may read, or change its permissions"
    )


def _looks_like_a_path(model: str) -> bool:
    before_revision = model.partition("@")[0]
    return (
        _PATH_START.match(model) is not None
        or "\\" in model
        or model.endswith("/")
        or model.lower().endswith(GGUF_SUFFIX)
        or before_revision.count("/") != 1
    )


def _no_such_folder(model: str) -> ModelNotFoundError:
    if model.lower().endswith(GGUF_SUFFIX):
        return ModelNotFoundError(
            f"no such file: {model}",
            "download a file from the Hub first: hf download REPOSITORY FILE --local-dir .",
        )
    address = _ADDRESS.match(model)
    if address is not None:
        return ModelNotFoundError(f"model is a web address: {model}", f"give the Hub id: {address.group(1)}")
    if "/" not in model and "\\" not in model and not _PATH_START.match(model):
        tag = _OLLAMA_TAG.match(model)
        example = f"Qwen3{tag.group(1) or ''}-{tag.group(2).upper()}" if tag else "Qwen3-0.6B"
        return ModelNotFoundError(
            f"no such folder, and not a Hub id: {model}", f"{_ID_FORM}, such as Qwen/{example}"
        )
    relative = model.removeprefix("./").rstrip("/")
    if relative.count("/") == 1 and all(_ID_PART.fullmatch(part) for part in relative.split("/")):
        return ModelNotFoundError(f"no such folder: {model}", f"for the Hub's repository: {relative}")
    return ModelNotFoundError(f"no such folder: {model}", f"check the path; {_ID_FORM}")


def _check_repo_id(repo_id: str) -> None:
    parts = repo_id.split("/")
    if not all(_ID_PART.fullmatch(part) for part in parts):
        raise UsageError(
            f"not a Hub id: {repo_id}",
            f"{_ID_FORM}; each part is letters, digits, - _ . and neither begins nor ends with - or .",
        )
    if "--" in repo_id or ".." in repo_id or repo_id.endswith(".git"):
        raise UsageError(f"not a Hub id: {repo_id}", "the Hub allows no --, no .. and no .git at the end")
    if any(len(part) > _MAX_PART_LENGTH for part in parts):
        raise UsageError(f"not a Hub id: {repo_id}", f"each part has at most {_MAX_PART_LENGTH} characters")


def _check_revision(model: str, revision: str) -> None:
    # This also prevents a revision from naming a file outside the cache's refs folder.
    is_too_long = len(revision.encode(errors="replace")) > _MAX_REVISION_BYTES
    if not revision or is_too_long or _NOT_IN_A_REVISION.search(revision):
        raise UsageError(f"not a revision: {model}", "after @ comes a branch, a tag or a commit's hash")
