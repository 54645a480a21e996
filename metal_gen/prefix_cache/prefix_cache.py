"""Finds the stored prefix of a prompt, and stores prefixes.

A prefix is stored in whole blocks. It can be used up to its end, and if the model allows it, up to any
earlier end of a chunk: there, a run without the cache would have computed the same numbers.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metal_gen.cache.stored_text import TextStorage
from metal_gen.errors import ConfigError
from metal_gen.files.parts import remove_all_dead_parts
from metal_gen.files.whole_file import write_whole
from metal_gen.prefix_cache.entry import Entry, EntryError, EntryWriter
from metal_gen.prefix_cache.folder import ALIAS, SUFFIX, PrefixFolder, aliased
from metal_gen.prefix_cache.keys import BLOCK, block_hashes
from metal_gen.prefix_cache.seen import SeenBlocks
from metal_gen.text.encoded_prompt import Prompt


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

    A cache whose folder cannot be used finds nothing and stores nothing.

    Args:
        folder: The folder of all models.
        model_key: Name of the model, from `keys.model_key`.
        model: Human-readable name of the model.
        chunk_size: Number of prompt tokens computed at once.
        min_tokens: Minimum length of a stored prefix.
    """

    def __init__(
        self, folder: PrefixFolder, model_key: str, *, model: str, chunk_size: int, min_tokens: int
    ) -> None:
        self._all = folder
        self._folder: Path | None = None
        self._model = model
        self._chunk_size = chunk_size
        self._min_tokens = min_tokens
        # Each is said once, though several prompts may meet it.
        self._notices: dict[str, None] = {}
        self._said: set[str] = set()
        self._unusable: set[Path] = set()
        self._hashed: tuple[Prompt, list[bytes]] | None = None
        try:
            self._folder = folder.prepare(model_key)
        except ConfigError as error:
            self.note(error.message if not error.hint else f"{error.message}; {error.hint}")

    def note(self, notice: str) -> None:
        """Keep what a person should know."""
        if notice not in self._said:
            self._notices[notice] = None

    def take_notices(self) -> list[str]:
        """Return what a person should know and was not told yet: what could not be used, or written."""
        notices = [*self._notices]
        self._said.update(notices)
        self._notices.clear()
        return notices

    def find(self, prompt: Prompt, cache: TextStorage) -> Found | None:
        """Find the longest stored beginning of a prompt; at least one token is left to compute.

        A damaged entry is a miss; a notice names it.
        """
        if self._folder is None:
            return None
        ids = prompt.ids
        hashes, stable = self._hashes_of(prompt), self._stable(prompt)
        for tokens in range(len(hashes) * BLOCK, 0, -BLOCK):
            if not self._ends_chunk(tokens, stable):
                continue
            for path in self._candidates(self._folder, hashes[tokens // BLOCK - 1], tokens, cache):
                try:
                    entry = Entry(path)
                    if entry.ids()[:tokens] == ids[:tokens]:
                        return Found(entry, tokens)
                except EntryError as error:
                    self._give_up(path, error.message)
        return None

    def _hashes_of(self, prompt: Prompt) -> list[bytes]:
        """Return the hashes of the blocks of a prompt that leave a token to compute."""
        if self._hashed is None or self._hashed[0] is not prompt:
            self._hashed = prompt, block_hashes(prompt.ids[:-1])
        return self._hashed[1]

    def _stable(self, prompt: Prompt) -> int:
        """Return the stable tokens in whole blocks, with one token left to compute; 0 if they are too few."""
        tokens = min(prompt.stable_tokens, len(prompt.ids) - 1) // BLOCK * BLOCK
        return tokens if tokens >= self._min_tokens else 0

    def _ends_chunk(self, tokens: int, stable: int) -> bool:
        """Return whether a chunk ends here too if nothing is stored, so that the numbers are the same.

        Without stable tokens that depends on earlier prompts, and any place will do.
        """
        if not stable or tokens == stable:
            return True
        return tokens % self._chunk_size == 0 and (tokens < stable or stable % self._chunk_size == 0)

    def _candidates(self, folder: Path, last_hash: bytes, tokens: int, cache: TextStorage) -> list[Path]:
        """Return the entries that end here, or hold a prefix that does and may be cut here."""
        # A long prompt has hundreds of places to look at, so no Path is made for what is not there.
        name = f"{folder}/{last_hash.hex()}"
        found = [Path(name + SUFFIX)] if os.path.lexists(name + SUFFIX) else []
        if tokens % self._chunk_size == 0 and cache.can_be_cut and os.path.lexists(name + ALIAS):
            longer = aliased(Path(name + ALIAS))
            found += [] if longer is None else [longer]
        return [path for path in found if path not in self._unusable]

    def _give_up(self, path: Path, reason: str) -> None:
        """Treat an entry as missing, so that it is written again."""
        self._unusable.add(path)
        self.note(f"{reason}; the prompt is computed instead")

    def fill(self, found: Found, cache: TextStorage) -> bool:
        """Fill an empty cache from an entry, one layer at a time.

        Returns:
            False if the entry cannot be used; the cache is empty then.
        """
        entry = found.entry
        try:
            cache.restore(found.tokens, entry.arrays(cache.layout(entry.notes.tokens)))
        except (EntryError, RuntimeError) as error:
            reason = error.message if isinstance(error, EntryError) else f"cannot read {entry.path.name}"
            self._give_up(entry.path, reason)
            cache.clear()
            return False
        with suppress(OSError):
            os.utime(entry.path)
        return True

    def boundary(self, prompt: Prompt) -> int:
        """Return how many tokens of a prompt are worth storing; 0 for none.

        These are the tokens before what differs from prompt to prompt, such as a system message, or else
        those that an earlier prompt had too. They have no answer of the model in them.
        """
        if self._folder is None:
            return 0
        if (stable := self._stable(prompt)) or prompt.has_answers:
            return stable
        tokens = self._seen.blocks_in_common(self._hashes_of(prompt)) * BLOCK
        return tokens if tokens >= self._min_tokens else 0

    @cached_property
    def _seen(self) -> SeenBlocks:
        assert self._folder is not None
        return SeenBlocks(self._folder)

    def remember(self, prompt: Prompt, *, saves: bool = True) -> None:
        """Remember the beginning of a prompt, so that the next one that shares it stores it.

        Args:
            prompt: The prompt.
            saves: Whether later processes should know, too.
        """
        if self._folder is not None and not prompt.has_answers:
            self._seen.add(self._hashes_of(prompt))
            if saves:
                self._seen.save()

    def is_stored(self, ids: Sequence[int]) -> bool:
        """Return whether exactly these tokens are stored, as far as is known."""
        path = self._path(ids)
        return os.path.lexists(path) and path not in self._unusable

    def _path(self, ids: Sequence[int]) -> Path:
        assert self._folder is not None
        return self._folder / f"{block_hashes(ids)[-1].hex()}{SUFFIX}"

    def begin_entry(self, ids: Sequence[int], cache: TextStorage) -> EntryWriter | None:
        """Start to write the entry of these tokens, which the cache holds; None if there is no room."""
        layout = cache.layout(len(ids))
        try:
            self._all.require_room(sum(each.nbytes for each in layout))
            return EntryWriter(self._path(ids), ids, layout, self._model)
        except ConfigError as error:
            self.note(error.message)
        except OSError as error:
            self.note_failure(error)
        return None

    def end_entry(self, writer: EntryWriter, ids: Sequence[int], cache: TextStorage) -> None:
        """Put a written entry in its place, and remove old ones if there are too many."""
        path = self._path(ids)
        try:
            writer.commit()
            self._unusable.discard(path)
            if cache.can_be_cut:
                self._name_shorter(path, ids)
            remove_all_dead_parts(path.parent)
            self._all.shrink()
        except OSError as error:
            self.note_failure(error)

    def _name_shorter(self, path: Path, ids: Sequence[int]) -> None:
        """Name an entry by the ends of the chunks in it, at which it may be cut."""
        hashes = block_hashes(ids)
        for end in range(self._chunk_size, len(ids), self._chunk_size):
            if end % BLOCK == 0:
                alias = path.with_name(f"{hashes[end // BLOCK - 1].hex()}{ALIAS}")
                write_whole(alias, path.name.encode(), private=True, follows_link=False)

    def note_failure(self, error: OSError) -> None:
        """Keep why nothing could be written."""
        self.note(f"cannot write to the prefix cache: {error.strerror}")
