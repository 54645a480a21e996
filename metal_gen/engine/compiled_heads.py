"""Guesses of layers for multi-token prediction, one after another, as one compiled function.

The kernel for attention writes to the cache of the layers, so nothing is copied, and nobody waits between two
guesses. Without the kernel, MLX would copy the cache at each guess.

Axes: R pairs of a state and the token after it, N guesses, S capacity.
"""

from collections.abc import Sequence
from functools import lru_cache

import mlx.core as mx

from metal_gen.cache.kv_cache import KVCache
from metal_gen.engine.compiled_rows import filled_up
from metal_gen.engine.compiled_step import MOST_KEPT, StepFunction, read_length
from metal_gen.models.mtp import MtpHeads
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.bias import add_bias, bias_arrays
from metal_gen.sampling.random_keys import fold
from metal_gen.sampling.sampler import DrawRule


class CompiledHeads:
    """Compiled guesses of one model's layers for multi-token prediction.

    Args:
        target: Model that the layers belong to.
        heads: The layers, with the kernel.
        cache: Cache of one layer.
        usual_rows: Number of pairs up to which functions do not differ.
        most_rows: Most pairs that come at once.
    """

    def __init__(
        self, target: Transformer, heads: MtpHeads, cache: KVCache, *, usual_rows: int, most_rows: int
    ) -> None:
        self._target = target
        self._heads = heads
        self._cache = cache
        self._usual_rows = usual_rows
        self._most_rows = most_rows
        self._function = lru_cache(maxsize=MOST_KEPT)(self._compile)

    @property
    def count(self) -> int:
        """Number of functions compiled so far."""
        return self._function.cache_info().misses

    def rows(self, pairs: int) -> int:
        """Return R for so many pairs."""
        return self._usual_rows if pairs <= self._usual_rows else filled_up(pairs, self._most_rows)

    def has_room(self, pairs: int, guesses: int) -> bool:
        """Return whether the cache has room for pairs, what fills them up, and guesses."""
        return max(self.rows(pairs), pairs + guesses - 1) <= self._cache.remaining

    def guess(
        self, tokens: Sequence[int], hidden: mx.array, rule: DrawRule, base: mx.array, indices: mx.array
    ) -> mx.array:
        """Add pairs to the cache, and guess from the last one on.

        Args:
            tokens: Token of each pair.
            hidden: State of each pair, (pairs, hidden).
            rule: Rule for all draws.
            base: `RandomKeys.base` of the text, (2,).
            indices: `words` of the index of each guess, (N, 2).

        Returns:
            Guesses, (N,), not computed yet. Their own pairs are beyond the cache's position.
        """
        cache, count = self._cache, len(tokens)
        rows, filling = self.rows(count), self.rows(count) - count
        cache.let_step_run()
        cache.claim(count)
        end = cache.start + max(rows, count + len(indices) - 1)
        length = read_length(end, cache.config.max_seq_len, has_kernel=True)
        function = self._function(rows, len(indices), length, rule)
        guesses = function(
            mx.array([*tokens, *[0] * filling], mx.int32),
            mx.pad(hidden, [(0, filling), (0, 0)]) if filling else hidden,
            mx.array([cache.start], mx.int32),
            mx.array([count], mx.int32),
            self._heads.rope.periods(cache.position),
            base,
            indices,
            *cache.buffers,
        )[0]
        cache.note_step(guesses)
        return guesses

    def _compile(self, rows: int, guesses: int, length: int, rule: DrawRule) -> StepFunction:
        """Compile the guesses after so many pairs, for one length of attention and one rule."""
        target, heads, capacity = self._target, self._heads, self._cache.config.max_seq_len
        bias, steps = bias_arrays(dict(rule.strategy.logit_bias)), mx.arange(rows)
        mx.eval(bias, steps)

        def run(
            tokens: mx.array,
            hidden: mx.array,
            start: mx.array,
            count: mx.array,
            periods: mx.array,
            base: mx.array,
            indices: mx.array,
            *buffers: mx.array,
        ) -> list[mx.array]:
            def states(
                tokens: mx.array, hidden: mx.array, positions: mx.array, *, is_one_text: bool = False
            ) -> mx.array:
                nexts = target.next_tokens(positions, length, capacity, buffers, is_one_text=is_one_text)
                assert nexts is not None
                return heads.by_kernel(target, tokens, hidden, self._cache, nexts, periods)

            state = mx.take(states(tokens, hidden, start + steps, is_one_text=True), count - 1, axis=0)
            drawn: list[mx.array] = []
            for place in range(guesses):
                if drawn:
                    state = states(drawn[-1], state, start + count + (place - 1))
                logits = target.logits(state)
                adjusted = add_bias(logits.astype(mx.float32), bias)
                drawn.append(rule(logits, adjusted, fold(base, indices[place]))[0][:1])
            return [mx.concatenate(drawn)]

        return mx.compile(run)
