"""What to do about a file that cannot be read, in a sentence."""

import os
import shlex
from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

# A folder of millions of files is not searched for a name.
MOST_NAMES = 10_000
# A name that is less like another one is not taken for a typing error.
LEAST_LIKENESS = 0.7


def how_to_read(error: OSError, path: Path) -> str:
    """A hint for a file that cannot be read.

    Args:
        error: What opening or reading it raised.
        path: As it was given.
    """
    if isinstance(error, FileNotFoundError):
        folder = path.parent
        if not folder.is_dir():
            return f"there is no folder {folder}"
        near = nearest_name(path)
        lists = "ls" if folder == Path() else f"ls {shlex.quote(str(folder))}"
        return f"did you mean {near}?" if near else f"check the name: `{lists}` shows what there is"
    if isinstance(error, IsADirectoryError):
        return "name a file in it"
    if isinstance(error, PermissionError):
        return f"`ls -l {shlex.quote(str(path))}` shows who may read it"
    return "name a file that can be read"


def nearest_name(path: Path) -> Path | None:
    """The file in the same folder whose name is nearly that of a missing one."""
    names: list[str] = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in islice(entries, MOST_NAMES) if entry.is_file()]
    near = get_close_matches(path.name, names, n=1, cutoff=LEAST_LIKENESS)
    return path.with_name(near[0]) if near else None
