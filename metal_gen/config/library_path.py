"""Decides which settings may name a library by path: a loaded library runs as part of the program.

Files for `--config` are passed around as data. The linker looks up a name without a folder among the system's
libraries, which only an administrator installs, but a path may lead to a library that came with the file. A
relative path depends on the current folder, so only flags, which are typed there, may have one.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from metal_gen.errors import ConfigError

NAME = "blas"


def require_safe_library(values: Mapping[str, object], place: str, *, may_be_path: bool) -> None:
    """Refuse a path to a library where none is allowed.

    Args:
        values: Checked values by setting name.
        place: Where the values come from, for a message.
        may_be_path: Whether an absolute path is allowed.

    Raises:
        ConfigError: There is a path that is not allowed.
    """
    library = values.get(NAME)
    if not isinstance(library, str) or os.sep not in library:
        return
    if not may_be_path:
        raise ConfigError(
            f"{place} must be the name of a library here, not a path: {library[:200]}",
            "give the path with --blas, or set it in your own settings file (metal-gen config path)",
        )
    if not Path(library).is_absolute():
        raise ConfigError(f"{place} must be an absolute path, not {library[:200]}", "or give it with --blas")
