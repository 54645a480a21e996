"""Small JSON documents that the program keeps between runs, in its user's cache folder.

They only save work. So a document with anything wrong is ignored, and one that cannot be written is left out.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

from metal_gen.files.bounded_file import open_regular
from metal_gen.files.json_file import NotJsonError, parse_json
from metal_gen.files.modes import OWNER_MAY
from metal_gen.files.whole_file import write_whole

OWNER_ALONE = 0o700


def cache_folder() -> Path | None:
    """Return `$XDG_CACHE_HOME/metal-gen`, by default in `~/.cache`; None without a home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metal-gen"
    except RuntimeError:
        return None


def read_kept(name: str, most_bytes: int) -> object:
    """Return a document; None if it is missing, damaged, too large, or could be somebody else's.

    Args:
        name: Name of the file in the cache folder.
        most_bytes: Size of the largest document.
    """
    folder = cache_folder()
    if folder is None or (path := folder / name).is_symlink():
        return None
    try:
        file, size = open_regular(path)
        with file:
            status = os.fstat(file.fileno())
            if size > most_bytes or status.st_uid != os.geteuid() or status.st_mode & 0o777 != OWNER_MAY:
                return None
            return parse_json(file.read(most_bytes))
    except (OSError, NotJsonError):
        return None


def write_kept(name: str, document: object) -> None:
    """Replace a document, for its user alone. Nothing happens where that is not possible.

    Args:
        name: Name of the file in the cache folder.
        document: What `json` can write.
    """
    folder = cache_folder()
    if folder is None:
        return
    with suppress(OSError):
        folder.mkdir(mode=OWNER_ALONE, parents=True, exist_ok=True)
        write_whole(folder / name, json.dumps(document).encode(), private=True, follows_link=False)
