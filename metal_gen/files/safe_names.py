"""Checks names and hashes from outside before they become parts of a path.

A listing, an index, an answer's headers or a note in the cache can contain anything. A path made from them
must stay in its folder: an accepted name has no separator, is not `..`, and can be the name of a file.
"""

import re
from typing import TypeGuard

MOST_NAME_BYTES = 255
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def is_plain_name(name: object, most_bytes: int = MOST_NAME_BYTES) -> TypeGuard[str]:
    """Return whether this is the name of a file directly in a folder, whatever the folder.

    Args:
        name: Value of any type.
        most_bytes: Maximum length in UTF-8.
    """
    if not isinstance(name, str) or not name or name in (".", ".."):
        return False
    if "/" in name or "\\" in name or _CONTROLS.search(name) or len(name) > most_bytes:
        return False
    try:
        return len(name.encode()) <= most_bytes
    except UnicodeEncodeError:  # unpaired surrogate
        return False


def is_commit(text: object) -> TypeGuard[str]:
    """Return whether this is the hash of a commit: 40 hexadecimal digits."""
    return isinstance(text, str) and _COMMIT.fullmatch(text) is not None
