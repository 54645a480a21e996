"""Runs a model over its cache: the prompt in chunks, then one token at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import mlx.core as mx

from metal_gen.cache.kv_cache import KVCache
from metal_gen.engine.compiled_step import CompiledStep
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.sampler import Draw, Sampler

PrefillProgress = Callable[[int, int], None]


class Decoder:
    """A model and the cache it writes to.

    Args:
        model: With its weights.
        cache: Of the model's shape; the sequence being decoded is its first.
        chunk_size: Prompt tokens computed at once; bounds the memory that prefill takes.
        ahead_bytes: What prefill may take beside weights and cache before it waits for the device
            to end what it has been handed; None sets no bound.
        compiles: Compile the step from one token to the next, where the cache is one sequence wide.

    Attributes:
        compiled: The step as it is compiled; None where it is not.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        *,
        chunk_size: int = 512,
        ahead_bytes: int | None = None,
        compiles: bool = False,
    ) -> None:
        self.model = model
        self.cache = cache
        self.chunk_size = chunk_size
        self.ahead_bytes = ahead_bytes
        self.compiled = CompiledStep(model, cache) if compiles and cache.config.batch_size == 1 else None

    def prefill(self, prompt: Sequence[int], on_progress: PrefillProgress | None = None) -> mx.array:
        """Add a prompt to the cache.

        Args:
            prompt: Token ids, at least one.
            on_progress: Called with the tokens done and the tokens in all after each chunk but the
                last, which is computed together with the first new token.

        Returns:
            (1, V) logits of the token after the prompt, being computed.

        Raises:
            CacheOverflowError: The prompt does not fit. What chunks came before is in the cache.
        """
        total = self.cache.position + len(prompt)
        last = (len(prompt) - 1) // self.chunk_size * self.chunk_size
        with at_most(self.ahead_bytes):
            for begin in range(0, last, self.chunk_size):
                tokens = mx.array([prompt[begin : begin + self.chunk_size]])
                self.model(tokens, self.cache, sequence_length=total)
                self.cache.evaluate()
                if on_progress is not None:
                    on_progress(begin + self.chunk_size, len(prompt))
            hidden = self.model(mx.array([prompt[last:]]), self.cache, sequence_length=total)
            logits = self.model.logits(hidden[:, -1])
            mx.async_eval(logits)
        return logits

    def step(self, token: mx.array) -> mx.array:
        """Add one token to the cache.

        Args:
            token: (1,) id, which need not be computed yet.

        Returns:
            (1, V) logits of the next token, not yet computed.

        Raises:
            CacheOverflowError: The cache is full; it is as before.
        """
        return self.model.logits(self.model(token[:, None], self.cache)[:, -1])

    def draw_next(self, token: mx.array, sampler: Sampler, index: int) -> Draw:
        """Add one token to the cache and draw the next.

        Args:
            token: As for `step`.
            sampler: Of this text.
            index: Of the new token.

        Returns:
            The draw, not yet computed.

        Raises:
            CacheOverflowError: The cache is full; it is as before.
        """
        if self.compiled is not None:
            return self.compiled.draw_next(token, sampler, index)
        return sampler.draw(self.step(token), index)


@contextmanager
def at_most(more_bytes: int | None) -> Iterator[None]:
    """Let MLX wait for what it has begun before it takes more memory than this."""
    if more_bytes is None:
        yield
        return
    before = mx.set_memory_limit(mx.get_active_memory() + more_bytes)
    try:
        yield
    finally:
        mx.set_memory_limit(before)
