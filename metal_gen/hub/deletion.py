"""Takes models out of the Hub's cache.

Imports huggingface_hub, which knows what commits share; so it is itself imported only to delete.
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
    """Delete commits of one repository, and with the last of them everything that is there of it.

    Args:
        models: What is to go; a file that another commit has too is kept.

    Raises:
        ConfigError: Not all of it could be deleted, or the repository is damaged and not all of it is
            to go.
    """
    repository = cached_repositories()[models[0].repo_id]
    commits = {model.commit for model in models if model.commit is not None}
    try:
        # What has no commit stands for all that is there.
        is_whole = len(commits) < len(models) or commits >= cached_commits(repository).keys()
    except OSError as error:
        raise unreadable(error) from None
    if not os.access(repository.parent, os.W_OK):
        raise ConfigError(f"the cache cannot be written to: {repository.parent}", "check whose folder it is")
    if not _delete_by_library(repository.name, commits):
        if not is_whole:
            raise ConfigError(
                f"a commit alone cannot be deleted, the cache is damaged: {models[0].reference}",
                f"`metal-gen models rm {models[0].repo_id}` deletes all that is there of it",
            )
        shutil.rmtree(repository, ignore_errors=True)
    for folder in [repository] if is_whole else [model.folder for model in models]:
        if folder.exists():
            raise ConfigError(f"not all of it could be deleted: {folder}", "check whose folder it is")


def _delete_by_library(repository: str, commits: set[str]) -> bool:
    """Delete commits of the repository in the folder of this name; False if they are not known.

    The library leaves out what is damaged, and knows nothing where it may not read everything.
    """
    with library_kept_quiet():
        try:
            cache = scan_cache_dir(cache_folder())
        except (OSError, ValueError):  # of any repository: no permission, notes that are no text
            return False
        # Of this repository only: copies of it have the same commits.
        repos = frozenset(repo for repo in cache.repos if repo.repo_path.name == repository)
        known = {revision.commit_hash for repo in repos for revision in repo.revisions}
        if not commits or not commits <= known:
            return False
        replace(cache, repos=repos).delete_revisions(*sorted(commits)).execute()
    return True
