"""Reuses the part of the KV cache that a new prompt shares with the previous text."""

from collections.abc import Callable, Sequence

import mlx.core as mx

from metal_gen.cache.common_prefix import common_prefix_length
from metal_gen.engine.decoder import Decoder, PrefillProgress

# More than chat templates put between a message and its answer. The next prompt may not have that.
TAIL_TOKENS = 16


class CachedText:
    """The tokens whose keys and values are in a decoder's cache: a prompt and the tokens after it.

    Other texts may use the cache in between. Then nothing of this text is left.

    Args:
        decoder: Decoder with the model and the cache.
        goes_on: Whether longer prompts follow that begin as this text does.
    """

    def __init__(self, decoder: Decoder, *, goes_on: bool = False) -> None:
        self._decoder = decoder
        self._goes_on = goes_on
        self._prompt: list[int] = []
        self._ids: list[int] = []
        self._number = -1
        self._periods: mx.array | None = None

    @property
    def has_the_cache(self) -> bool:
        """Whether no other text has begun since."""
        return self._decoder.cache.texts == self._number

    def begin(self, prompt: Sequence[int]) -> int:
        """Keep the prefix that a prompt shares with the text so far.

        Args:
            prompt: Token ids, at least one.

        Returns:
            Number of prompt tokens that are already in the cache. At least one is left for `prefill`.
        """
        cache = self._decoder.cache
        # Dynamic rope scaling rotates a prompt's keys by its length: keys of another length are useless.
        periods = self._decoder.model.rope.periods(len(prompt))
        kept = self._reusable_length(prompt) if self.has_the_cache and periods is self._periods else 0
        # A step may still be running. Without waiting for it, the next write would copy the buffers.
        cache.evaluate()
        cache.clear(keep=kept)
        self._number, self._periods = cache.texts, periods
        self._prompt = list(prompt)
        self._ids = self._prompt[:kept]
        return kept

    def restored(self, length: int) -> None:
        """Record that the cache has been filled with the first `length` tokens of the prompt from storage."""
        self._number = self._decoder.cache.texts
        self._ids = self._prompt[:length]

    @property
    def is_usually_rotated(self) -> bool:
        """Whether RoPE rotates the prompt's keys as it rotates those of any shorter text."""
        return self._periods is self._decoder.model.rope.periods(1)

    def prefill(
        self,
        on_progress: PrefillProgress | None = None,
        *,
        boundary: int = 0,
        on_hidden: Callable[[mx.array], None] | None = None,
    ) -> mx.array:
        """Compute the rest of the prompt, with the arguments, result and errors of `Decoder.prefill`.

        If it fails, the next prompt reuses what was computed.
        """
        begin = len(self._ids)

        def note(done: int, total: int) -> None:
            self._ids = self._prompt[: begin + done]
            if on_progress is not None:
                on_progress(done, total)

        cache = self._decoder.cache
        marks = {boundary}
        if self._goes_on and not cache.can_be_cut:
            # The next prompt has the messages of this one, but perhaps not what comes after them.
            marks.add(tail := max(begin, len(self._prompt) - TAIL_TOKENS))
            if tail == begin:
                cache.mark()
        logits = self._decoder.prefill(
            self._prompt[begin:], note, marks={mark - begin for mark in marks}, on_hidden=on_hidden
        )
        self._ids = list(self._prompt)
        if not self._goes_on:
            cache.mark()
        return logits

    def add(self, token: int) -> None:
        """Record a new token. The cache's position tells whether the token has reached the cache."""
        self._ids.append(token)

    def take_back_to_prompt(self) -> None:
        """Take back all new tokens."""
        self._decoder.cache.take_back(self._decoder.cache.position - len(self._prompt))
        del self._ids[len(self._prompt) :]

    def _reusable_length(self, prompt: Sequence[int]) -> int:
        cache = self._decoder.cache
        common = common_prefix_length(self._ids, prompt)
        return cache.reachable(min(common, cache.position, len(prompt) - 1))
