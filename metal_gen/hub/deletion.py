"""Deletes models from the Hub's cache.

Imports huggingface_hub, which knows which files commits share, so import this module only to delete.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace

from huggingface_hub import scan_cache_dir

from metal_gen.errors import ConfigError
from metal_gen.hub.cache import cache_folder, cached_commits, cached_repositories, unreadable
from metal_gen.hub.cached_models import CachedModel
from metal_gen.hub.quiet import library_kept_quiet


def delete_from_cache(models: Sequence[CachedModel]) -> None:
    """Delete commits of one repository; with its last commit, delete the whole repository.

    Args:
        models: The commits to delete; files shared with other commits are kept.

    Raises:
        ConfigError: Something could not be deleted; or the repository is damaged and only some of its
            commits were to be deleted.
    """
    repository = cached_repositories()[models[0].repo_id]
    commits = {model.commit for model in models if model.commit is not None}
    try:
        # An entry without a commit stands for the whole repository.
        is_whole = len(commits) < len(models) or commits >= cached_commits(repository).keys()
    except OSError as error:
        raise unreadable(error) from None
    if not os.access(repository.parent, os.W_OK):
        raise ConfigError(f"the cache cannot be written to: {repository.parent}", "check who owns the folder")
    if not _delete_by_library(repository.name, commits):
        if not is_whole:
            raise ConfigError(
                f"cannot delete a single commit, because the cache is damaged: {models[0].reference}",
                f"`metal-gen models rm {models[0].repo_id}` deletes the whole repository",
            )
        shutil.rmtree(repository, ignore_errors=True)
    for folder in [repository] if is_whole else [model.folder for model in models]:
        if folder.exists():
            raise ConfigError(f"could not be deleted completely: {folder}", "check who owns the folder")


def _delete_by_library(repository: str, commits: set[str]) -> bool:
    """Delete commits with huggingface_hub; return False if it does not know them.

    The library's scan leaves out damaged repositories, and fails if any file is unreadable.
    """
    with library_kept_quiet():
        try:
            cache = scan_cache_dir(cache_folder())
        except (OSError, ValueError):  # in any repository: no permission, or refs that are not text
            return False
        # Restrict to this repository: copies of it have the same commits.
        repos = frozenset(repo for repo in cache.repos if repo.repo_path.name == repository)
        known = {revision.commit_hash for repo in repos for revision in repo.revisions}
        if not commits or not commits <= known:
            return False
        replace(cache, repos=repos).delete_revisions(*sorted(commits)).execute()
    return True
