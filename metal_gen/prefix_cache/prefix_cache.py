"""Finds the stored prefix of a prompt, and stores prefixes.

A prefix is stored in whole blocks. It can be used up to its end, and if the model allows it, up to any
earlier end of a chunk: there, a run without the cache would have computed the same numbers.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metal_gen.cache.stored_text import TextStorage
from metal_gen.errors import MetalGenError
from metal_gen.files.parts import remove_all_dead_parts
from metal_gen.files.whole_file import write_whole
from metal_gen.prefix_cache.entry import Entry, EntryError, EntryWriter
from metal_gen.prefix_cache.folder import SUFFIX, PrefixFolder
from metal_gen.prefix_cache.keys import BLOCK, block_hashes
from metal_gen.prefix_cache.seen import SeenBlocks

# Suffix of files that name a longer entry which contains a shorter prefix.
ALIAS = ".in"
MOST_ALIAS_BYTES = 100


@dataclass(frozen=True)
class Found:
    """A stored prefix of a prompt.

    Attributes:
        entry: The entry.
        tokens: Number of its tokens that the prompt starts with.
    """

    entry: Entry
    tokens: int


class PrefixCache:
    """The stored prefixes of one model.

    Args:
        folder: The folder of all models.
        model_key: Name of the model, from `keys.model_key`.
        model: Human-readable name of the model.
        chunk_size: Number of prompt tokens computed at once.
        min_tokens: Minimum length of a stored prefix.

    Attributes:
        notices: Messages for the user about entries that could not be used or written.

    Raises:
        ConfigError: The folder cannot be used.
    """

    def __init__(
        self, folder: PrefixFolder, model_key: str, *, model: str, chunk_size: int, min_tokens: int
    ) -> None:
        self._all = folder
        self._folder = folder.prepare(model_key)
        self._model_key = model_key
        self._model = model
        self._chunk_size = chunk_size
        self._min_tokens = min_tokens
        self.notices: list[str] = []

    def find(self, ids: Sequence[int], cache: TextStorage) -> Found | None:
        """Find the longest stored prefix of a prompt; at least one token is left to compute.

        A damaged entry is a miss; a notice names it.
        """
        hashes = block_hashes(ids[:-1])
        for count in range(len(hashes), 0, -1):
            for path in self._candidates(hashes[count - 1], count * BLOCK, cache):
                try:
                    entry = Entry(path)
                    if entry.ids()[: count * BLOCK] == list(ids[: count * BLOCK]):
                        return Found(entry, count * BLOCK)
                except EntryError as error:
                    self.notices.append(f"{error.message}; the prompt is computed instead")
        return None

    def _candidates(self, last_hash: bytes, tokens: int, cache: TextStorage) -> list[Path]:
        path = self._folder / f"{last_hash.hex()}{SUFFIX}"
        found = [path] if os.path.lexists(path) else []
        if tokens % self._chunk_size == 0 and cache.can_be_cut:
            with suppress(OSError, UnicodeDecodeError):
                name = (self._folder / f"{last_hash.hex()}{ALIAS}").read_bytes()[:MOST_ALIAS_BYTES].decode()
                longer = self._folder / name
                if longer.parent == self._folder and longer.is_file():
                    found.append(longer)
        return found

    def fill(self, found: Found, cache: TextStorage) -> bool:
        """Fill an empty cache from an entry, one layer at a time.

        Returns:
            False if the entry cannot be used; the cache is empty then.
        """
        entry = found.entry
        try:
            cache.restore(found.tokens, entry.arrays(cache.layout(entry.notes.tokens)))
        except (EntryError, RuntimeError) as error:
            reason = error.message if isinstance(error, MetalGenError) else f"cannot read {entry.path.name}"
            self.notices.append(f"{reason}; the prompt is computed instead")
            cache.clear()
            return False
        with suppress(OSError):
            os.utime(entry.path)
        return True

    def boundary(self, ids: Sequence[int], stable_tokens: int) -> int:
        """Return the number of tokens of a prompt that are worth storing; 0 for none.

        Args:
            ids: Token ids of the prompt.
            stable_tokens: Number of tokens that similar prompts share, such as a system message.
        """
        hashes = block_hashes(ids[:-1])
        seen = SeenBlocks(self._folder)
        tokens = max(stable_tokens // BLOCK, seen.blocks_in_common(hashes)) * BLOCK
        seen.add(hashes)
        return tokens if tokens >= self._min_tokens else 0

    def is_stored(self, ids: Sequence[int]) -> bool:
        """Return whether exactly these tokens are stored."""
        return os.path.lexists(self._path(ids))

    def _path(self, ids: Sequence[int]) -> Path:
        return self._all.entry_path(self._model_key, block_hashes(ids)[-1])

    def begin_entry(self, ids: Sequence[int], cache: TextStorage) -> EntryWriter | None:
        """Start to write the entry of these tokens, which the cache holds; None if there is no room."""
        layout = cache.layout(len(ids))
        try:
            if not self._all.has_room(sum(each.nbytes for each in layout)):
                self.notices.append("the prefix cache has no room for this prompt, or its disk is full")
                return None
            return EntryWriter(self._path(ids), ids, layout, self._model)
        except OSError as error:
            self.notices.append(f"cannot write to the prefix cache: {error.strerror}")
            return None

    def end_entry(self, writer: EntryWriter, ids: Sequence[int]) -> None:
        """Commit a written entry, and remove old ones if the limit is exceeded."""
        try:
            writer.commit()
            hashes = block_hashes(ids)
            for end in range(self._chunk_size, len(ids), self._chunk_size):
                if end % BLOCK == 0:
                    alias = self._folder / f"{hashes[end // BLOCK - 1].hex()}{ALIAS}"
                    write_whole(alias, self._path(ids).name.encode(), private=True, follows_link=False)
            remove_all_dead_parts(self._folder)
            self._all.shrink()
        except OSError as error:
            writer.discard()
            self.notices.append(f"cannot write to the prefix cache: {error.strerror}")
