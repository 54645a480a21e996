"""Which beginnings of prompts a model has seen, as hashes of their blocks.

A hash stands for all blocks up to its own, so the longest one that is known is the longest beginning that an
earlier prompt had. The file holds hashes alone, the newest last, and no text.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from metal_gen.files.bounded_file import read_bounded
from metal_gen.files.whole_file import write_whole
from metal_gen.prefix_cache.keys import HASH_BYTES

FILE = "seen"
# One million tokens of prompts, in 256 KiB.
MOST_HASHES = 16_384


class SeenBlocks:
    """The blocks that earlier prompts began with.

    Args:
        folder: Folder of the model.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._hashes = self._read()

    def _read(self) -> list[bytes]:
        with suppress(OSError):
            status = self._path.lstat()
            if status.st_uid == os.geteuid():
                content = read_bounded(self._path, MOST_HASHES * HASH_BYTES)
                return [content[at : at + HASH_BYTES] for at in range(0, len(content), HASH_BYTES)]
        return []

    def blocks_in_common(self, hashes: Sequence[bytes]) -> int:
        """Return how many blocks a prompt shares, from its beginning, with an earlier one."""
        known = set(self._hashes)
        return next((count for count in range(len(hashes), 0, -1) if hashes[count - 1] in known), 0)

    def add(self, hashes: Sequence[bytes]) -> None:
        """Remember a prompt's blocks and forget the oldest ones, if the file can be written."""
        given = set(hashes)
        if given <= set(self._hashes):
            return
        kept = [each for each in self._hashes if each not in given]
        self._hashes = [*kept, *hashes][-MOST_HASHES:]
        with suppress(OSError):
            write_whole(self._path, b"".join(self._hashes), private=True, follows_link=False)
