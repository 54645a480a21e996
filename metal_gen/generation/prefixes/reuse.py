"""Reads a prompt prefix from the prefix cache, and stores one while the answer is generated."""

from collections.abc import Iterator

import mlx.core as mx

from metal_gen.background import Background
from metal_gen.cache.kv_cache import KVCache
from metal_gen.checkpoint.bundled import BUNDLED_NAME
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.engine.cached_text import CachedText
from metal_gen.generation.memory.plan import MemoryPlan
from metal_gen.prefix_cache.entry import EntryWriter, bytes_of
from metal_gen.prefix_cache.folder import folder_of
from metal_gen.prefix_cache.keys import model_key
from metal_gen.prefix_cache.prefix_cache import PrefixCache
from metal_gen.text.encoded_prompt import Prompt


def open_prefix_cache(
    checkpoint: Checkpoint, settings: Settings, plan: MemoryPlan, *, stride: int | None = None
) -> PrefixCache:
    """Open the prefix cache of a model. If its folder cannot be used, a notice says so.

    Args:
        checkpoint: The opened checkpoint.
        settings: Settings in force.
        plan: Memory of the run.
        stride: Number of prompt tokens that slots compute at once; None if a prompt is computed in chunks.

    Raises:
        ConfigError: The settings name no folder, and there is no home.
    """
    chunk_size = plan.chunk_size if stride is None else stride
    return PrefixCache(
        folder_of(settings),
        model_key(checkpoint, plan.dtype, plan.cache, chunk_size, in_slots=stride is not None),
        model=settings.model or BUNDLED_NAME,
        chunk_size=chunk_size,
        min_tokens=settings.prefix_cache_min_tokens,
    )


class PrefixReuse:
    """One prompt and its stored prefix.

    A prefix is stored only from a prompt that is computed from its beginning, or from a stored one: what is
    left of an earlier text was computed token by token, in other chunks.

    Args:
        prefixes: The prefix cache of the model.
        prompt: The prompt.
        cached: The text in the KV cache, begun with the prompt.
        kept: Number of prompt tokens that the KV cache holds already.

    Attributes:
        stored_tokens: Number of prompt tokens that came from the disk.
        kept: Number of prompt tokens that need not be computed.
        boundary: Number of prompt tokens after which a chunk must end; 0 for none.
    """

    def __init__(
        self, prefixes: PrefixCache, prompt: Prompt, cached: CachedText, cache: KVCache, kept: int
    ) -> None:
        self._prefixes = prefixes
        self._prompt = prompt
        self._cache = cache
        self.kept, self.stored_tokens, self.boundary = kept, 0, 0
        self._writing: _Writing | None = None
        self._has_begun = False
        if not cached.is_usually_rotated:
            self._has_begun = True
            return
        found = prefixes.find(prompt, cache)
        if found is not None and found.tokens > kept:
            if prefixes.fill(found, cache):
                cached.restored(found.tokens)
                self.kept = self.stored_tokens = found.tokens
            else:
                self.kept = cached.begin(prompt.ids)
        if self.kept == self.stored_tokens:
            self.boundary = prefixes.boundary(prompt)

    def advance(self) -> None:
        """Write a part of the prefix, if there is one to store. Called after each token."""
        if not self._has_begun:
            self._has_begun = True
            self._begin()
        elif self._writing is not None:
            self._writing.advance()

    def _begin(self) -> None:
        self._prefixes.remember(self._prompt)
        ids = self._prompt.ids[: self.boundary]
        if self.boundary <= self.stored_tokens or self._prefixes.is_stored(ids):
            return
        writer = self._prefixes.begin_entry(ids, self._cache)
        if writer is not None:
            self._writing = _Writing(writer, self._cache.stored(self.boundary))

    def finish(self) -> None:
        """Write the rest and commit the entry."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            writing.finish()
        except OSError as error:
            self._prefixes.note_failure(error)
            return
        self._prefixes.end_entry(writing.writer, self._prompt.ids[: self.boundary], self._cache)

    def discard(self) -> None:
        """Discard an incomplete entry."""
        if self._writing is not None:
            self._writing.discard()
            self._writing = None


class _Writing:
    """Writes arrays on another thread, one at a time, so that no more than one is copied at once.

    After an array that could not be written nothing more is written, and nothing is left.
    """

    def __init__(self, writer: EntryWriter, arrays: Iterator[mx.array]) -> None:
        self.writer = writer
        self._arrays = arrays
        self._last: Background[None] | None = None
        self._failure: OSError | None = None

    def advance(self) -> bool:
        """Hand over the next array, unless the one before is still being written.

        Returns:
            False if there are no more arrays, or one could not be written.
        """
        if self._last is not None and not self._last.wait(0):
            return True
        self._settle()
        array = next(self._arrays, None) if self._failure is None else None
        if array is None:
            return False
        content = bytes_of(array)
        self._last = Background(lambda: self.writer.add(content))
        return True

    def finish(self) -> None:
        """Write the remaining arrays.

        Raises:
            OSError: One could not be written.
        """
        while self.advance():
            if self._last is not None:
                self._last.wait(60)
        if self._failure is not None:
            raise self._failure

    def discard(self) -> None:
        """Stop writing."""
        self._settle()
        self.writer.discard()

    def _settle(self) -> None:
        """Wait for the last array."""
        if self._last is not None:
            try:
                self._last.result()
            except OSError as error:
                self._failure = error
            self._last = None
