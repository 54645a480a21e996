"""Which settings may name a library by a path: a library that is loaded runs as a part of the program.

Files for `--config` are handed around as data. The linker finds a name without a folder among the system's
libraries, where only an administrator puts any; a path may lead to what came with the file. One that is not
absolute depends on the folder that a person happens to be in, so it is for flags, which are typed there.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from metal_gen.errors import ConfigError

NAME = "blas"


def require_safe_library(values: Mapping[str, object], place: str, *, may_be_path: bool) -> None:
    """Refuse a path to a library where none may be.

    Args:
        values: Checked values by setting name.
        place: Where they are from, for a message.
        may_be_path: An absolute one may be.

    Raises:
        ConfigError: There is one that may not.
    """
    library = values.get(NAME)
    if not isinstance(library, str) or os.sep not in library:
        return
    if not may_be_path:
        raise ConfigError(
            f"{place} is a path, where only the name of a library may be: {library[:200]}",
            "give the path with --blas, or set it in your own settings file (metal-gen config path)",
        )
    if not Path(library).is_absolute():
        raise ConfigError(f"{place} must be a whole path, from /: {library[:200]}", "or give it with --blas")
