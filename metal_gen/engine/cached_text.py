"""Begins a text with what the cache has left of the one before."""

from collections.abc import Sequence

import mlx.core as mx

from metal_gen.engine.decoder import Decoder, PrefillProgress


class CachedText:
    """The tokens whose keys and values a decoder's cache holds: a prompt, and what followed it.

    Other texts may use the cache in between; then nothing is left of this one.

    Args:
        decoder: Of the model and the cache.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._prompt: list[int] = []
        self._ids: list[int] = []
        self._number = -1
        self._periods: mx.array | None = None

    @property
    def has_the_cache(self) -> bool:
        """Whether no other text has been begun since."""
        return self._decoder.cache.texts == self._number

    def begin(self, prompt: Sequence[int]) -> int:
        """Take over what a prompt has in common with the text so far, from its beginning.

        Args:
            prompt: Token ids, at least one.

        Returns:
            Tokens of the prompt that need not be computed; one at least is left for `prefill`.
        """
        cache = self._decoder.cache
        # Dynamic rope scaling turns all keys of a prompt by its length: others are of no use to it.
        periods = self._decoder.model.rope.periods(len(prompt))
        kept = self._in_common(prompt) if self.has_the_cache and periods is self._periods else 0
        # A step may still be under way. Were it not, the next write would copy the buffers.
        cache.evaluate()
        cache.clear(keep=kept)
        self._number, self._periods = cache.texts, periods
        self._prompt = list(prompt)
        self._ids = self._prompt[:kept]
        return kept

    def prefill(self, on_progress: PrefillProgress | None = None) -> mx.array:
        """Compute the rest of the prompt; arguments, result and errors as of `Decoder.prefill`.

        What was computed when it fails is taken over by the next prompt.
        """
        begin = len(self._ids)

        def note(done: int, total: int) -> None:
            self._ids = self._prompt[: begin + done]
            if on_progress is not None:
                on_progress(done, total)

        logits = self._decoder.prefill(self._prompt[begin:], note)
        self._ids = list(self._prompt)
        self._decoder.cache.mark()
        return logits

    def add(self, token: int) -> None:
        """Note a new token; whether it has reached the cache is seen from the cache's position."""
        self._ids.append(token)

    def rewind_to_prompt(self) -> None:
        """Take all new tokens back."""
        self._decoder.cache.rewind(self._decoder.cache.position - len(self._prompt))
        del self._ids[len(self._prompt) :]

    def _in_common(self, prompt: Sequence[int]) -> int:
        most = min(len(self._ids), self._decoder.cache.position, len(prompt) - 1)
        common = next((place for place in range(most) if self._ids[place] != prompt[place]), most)
        return self._decoder.cache.reachable(common)
