"""Remembers the beginnings of earlier prompts of a model, as hashes of their blocks.

A hash identifies all blocks up to its own, so the last known hash of a prompt marks the longest beginning
that it shares with an earlier one. The file has only hashes, the newest last, and no text.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from metal_gen.files.bounded_file import read_bounded
from metal_gen.files.whole_file import write_whole
from metal_gen.prefix_cache.keys import HASH_BYTES

FILE = "seen"
# One million prompt tokens, in 256 KiB.
MOST_HASHES = 16_384


class SeenBlocks:
    """The blocks at the beginnings of earlier prompts.

    Args:
        folder: Folder of the model.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._hashes = self._read()
        self._has_changed = False

    def _read(self) -> list[bytes]:
        with suppress(OSError):
            status = self._path.lstat()
            if status.st_uid == os.geteuid():
                content = read_bounded(self._path, MOST_HASHES * HASH_BYTES)
                whole = len(content) - len(content) % HASH_BYTES
                return [content[at : at + HASH_BYTES] for at in range(0, whole, HASH_BYTES)]
        return []

    def blocks_in_common(self, hashes: Sequence[bytes]) -> int:
        """Return the number of blocks at the beginning that a prompt shares with an earlier one."""
        known = set(self._hashes)
        return next((count for count in range(len(hashes), 0, -1) if hashes[count - 1] in known), 0)

    def add(self, hashes: Sequence[bytes]) -> None:
        """Remember a prompt's blocks, and forget the oldest ones."""
        given = set(hashes)
        if given <= set(self._hashes):
            return
        kept = [each for each in self._hashes if each not in given]
        self._hashes = [*kept, *hashes][-MOST_HASHES:]
        self._has_changed = True

    def save(self) -> None:
        """Write what has been added, if the file can be written."""
        if self._has_changed:
            self._has_changed = False
            with suppress(OSError):
                write_whole(self._path, b"".join(self._hashes), private=True, follows_link=False)
