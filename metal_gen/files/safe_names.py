"""Names and hashes from outside that become parts of a path: the one check that all of them pass.

A listing, an index, an answer's headers or a note in the cache can say anything. What is joined with a folder
must stay in that folder: a name that passes has no separator, is not `..`, and can be a file's name.
"""

import re
from typing import TypeGuard

MOST_NAME_BYTES = 255
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def is_plain_name(name: object, most_bytes: int = MOST_NAME_BYTES) -> TypeGuard[str]:
    """Say whether this is the name of a file directly in a folder, whichever folder it is joined with.

    Args:
        name: Anything.
        most_bytes: Length in UTF-8 at most.
    """
    if not isinstance(name, str) or not name or name in (".", ".."):
        return False
    if "/" in name or "\\" in name or _CONTROLS.search(name) or len(name) > most_bytes:
        return False
    try:
        return len(name.encode()) <= most_bytes
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def is_commit(text: object) -> TypeGuard[str]:
    """Say whether this is the hash of a commit: 40 hexadecimal digits."""
    return isinstance(text, str) and _COMMIT.fullmatch(text) is not None
