"""Reads a prompt prefix from the prefix cache, and stores one while the answer is generated."""

from collections.abc import Iterator

import mlx.core as mx

from metal_gen.background import Background
from metal_gen.cache.kv_cache import KVCache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.engine.cached_text import CachedText
from metal_gen.generation.memory_plan import MemoryPlan
from metal_gen.prefix_cache.entry import EntryWriter
from metal_gen.prefix_cache.folder import folder_of
from metal_gen.prefix_cache.keys import model_key
from metal_gen.prefix_cache.prefix_cache import PrefixCache
from metal_gen.text.encoded_prompt import Prompt

BUNDLED_NAME = "the bundled model"


def open_prefix_cache(
    checkpoint: Checkpoint, settings: Settings, plan: MemoryPlan, *, stride: int | None = None
) -> PrefixCache:
    """Open the prefix cache of a model.

    Args:
        checkpoint: The opened checkpoint.
        settings: Settings in force.
        plan: Memory of the run.
        stride: Number of prompt tokens that slots compute at once; None if a prompt is computed in chunks.

    Raises:
        ConfigError: Its folder cannot be used.
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
        self._cache = cache
        self.kept, self.stored_tokens, self.boundary = kept, 0, 0
        self._writing: _Writing | None = None
        if not cached.is_usually_rotated:
            return
        self.boundary = prefixes.boundary(prompt.ids, prompt.stable_tokens)
        found = prefixes.find(prompt.ids, cache)
        if found is not None and found.tokens > kept:
            if prefixes.fill(found, cache):
                cached.restored(found.tokens)
                self.kept = self.stored_tokens = found.tokens
            else:
                self.kept = cached.begin(prompt.ids)
        self._ids = prompt.ids[: self.boundary]

    def advance(self) -> None:
        """Write a part of the prefix, if there is one to store. Called after each token."""
        if not self.boundary:
            return
        if self._writing is None:
            if self.boundary <= self.stored_tokens or self._prefixes.is_stored(self._ids):
                self.boundary = 0
                return
            writer = self._prefixes.begin_entry(self._ids, self._cache)
            if writer is None:
                self.boundary = 0
                return
            self._writing = _Writing(writer, self._cache.stored(self.boundary))
        self._writing.advance()

    def finish(self) -> None:
        """Write the rest and commit the entry."""
        if self._writing is not None and self._writing.finish():
            self._prefixes.end_entry(self._writing.writer, self._ids)
        elif self._writing is not None:
            self._prefixes.notices.append("cannot write to the prefix cache")
        self._writing = None

    def discard(self) -> None:
        """Discard an incomplete entry."""
        if self._writing is not None:
            self._writing.discard()
            self._writing = None


class _Writing:
    """Writes arrays on another thread, one at a time, so that no more than one is copied at once."""

    def __init__(self, writer: EntryWriter, arrays: Iterator[mx.array]) -> None:
        self.writer = writer
        self._arrays = arrays
        self._last: Background[None] | None = None
        self._has_failed = False

    def advance(self) -> bool:
        """Hand over the next array, unless the one before is still being written.

        Returns:
            False if there are no more arrays.
        """
        if self._last is not None and not self._last.wait(0):
            return True
        if not self._settle():
            return False
        array = next(self._arrays, None)
        if array is None:
            return False
        mx.eval(array)
        self._last = Background(lambda: self.writer.add(array))
        return True

    def finish(self) -> bool:
        """Write the remaining arrays. Return whether that succeeded."""
        while self.advance():
            if self._last is not None:
                self._last.wait(60)
        return self._settle()

    def discard(self) -> None:
        """Stop writing."""
        self._settle()
        self.writer.discard()

    def _settle(self) -> bool:
        """Wait for the last array. Return whether all arrays so far are written."""
        if self._last is not None:
            try:
                self._last.result()
            except OSError:
                self._has_failed = True
            self._last = None
        return not self._has_failed
