"""One decode step as a single compiled function: model, KV cache and sampling.

Python builds the graph of a step once per range of positions. MLX then replays it, with its element-wise
operations fused. This requires fixed shapes: attention reads a part of the cache whose length grows in a
few strides, and a mask hides the places after the position. A kernel for attention needs neither.

Axes: B sequences, H key/value heads, S capacity, D head size, V vocabulary.
"""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import mlx.core as mx

from metal_gen.cache.kv_cache import KVCache
from metal_gen.engine.fixed_shapes import FixedShapes
from metal_gen.models.attention import Part, Step
from metal_gen.models.kernels.heads import ONE_STRETCH
from metal_gen.models.masks import seen_by
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.bias import add_bias, bias_arrays
from metal_gen.sampling.logprobs import LogprobArrays
from metal_gen.sampling.random_keys import fold, fold_rows, words
from metal_gen.sampling.sampler import Draw, DrawRule, Sampler

SHORTEST_STRIDE = 256
STRIDES_PER_DOUBLING = 8
# A long text needs about a dozen functions. Several sets are kept, for texts that are drawn in turns.
MOST_KEPT = 64

StepFunction = Callable[..., Sequence[mx.array]]


def attended_length(position: int, capacity: int) -> int:
    """Return how much of the cache attention reads when it holds `position` tokens, with the new one.

    The length is a multiple of 256 tokens, or of an eighth of the last power of two if that is more, so
    that each next length costs at most an eighth more.
    """
    doubling = 1 << (position - 1).bit_length() >> 1
    stride = max(SHORTEST_STRIDE, doubling // STRIDES_PER_DOUBLING)
    return min(-(-position // stride) * stride, capacity)


def read_length(position: int, capacity: int, *, has_kernel: bool) -> int:
    """Return how much of a cache of `position` tokens, with the new ones, a compiled pass may read.

    A kernel reads only what is there, and knows two lengths.
    """
    if not has_kernel:
        return attended_length(position, capacity)
    return min(ONE_STRETCH, capacity) if position <= ONE_STRETCH else capacity


class CompiledStep:
    """The compiled step of one model over one cache, for all its sequences at once.

    Args:
        model: Model with its weights.
        cache: Cache whose buffers go through the compiled function and come back from it.

    Attributes:
        seconds: Time spent on building them, in seconds.
    """

    def __init__(self, model: Transformer, cache: KVCache) -> None:
        self.model = model
        self.cache = cache
        self.seconds = 0.0
        self._nothing = mx.zeros(2, mx.uint32)
        self._function = lru_cache(maxsize=MOST_KEPT)(self._compile)

    @property
    def count(self) -> int:
        """Number of functions compiled so far."""
        return self._function.cache_info().misses

    def draw_next(self, token: mx.array, sampler: Sampler, index: int) -> Draw:
        """Add one token and draw the next, as `Decoder.draw_next` does. The cache must hold one sequence."""
        cache = self.cache
        cache.claim(1)
        rule = sampler.rule if sampler.follows_rule_alone(index) else None
        periods = self.model.rope.periods(cache.position)
        logits, outcome, logprobs = self.run(
            token, [cache.start], periods, rule, sampler.keys.base, words(index)
        )
        return sampler.draw(logits, index) if outcome is None else Draw(logits, index, outcome, logprobs)

    def step(self, token: mx.array) -> mx.array:
        """Add one token as `Decoder.step` does. The cache must hold one sequence."""
        cache = self.cache
        cache.claim(1)
        periods = self.model.rope.periods(cache.position)
        return self.run(token, [cache.start], periods, None, self._nothing, self._nothing)[0]

    def run(
        self,
        tokens: mx.array,
        positions: Sequence[int],
        periods: mx.array,
        rule: DrawRule | None,
        bases: mx.array,
        indices: mx.array,
        active: Sequence[bool] = (True,),
    ) -> tuple[mx.array, mx.array | None, LogprobArrays | None]:
        """Add one token to each sequence, and draw the next one if the draw follows a fixed rule.

        Args:
            tokens: Token ids, (B,); they need not be computed yet.
            positions: Position of each token.
            periods: Periods of the rotary embedding.
            rule: Rule for drawing all sequences; None skips the draw.
            bases: `RandomKeys.base` of each sequence, (B, 2), or of the only one, (2,).
            indices: `words` of each new token's index, in the same shape.
            active: Which sequences have a token. The results of the others are not used.

        Returns:
            Logits, (B, V), and the results of the rule. Nothing is computed yet.
        """
        cache = self.cache
        capacity, has_kernel = cache.config.max_seq_len, self.model.has_kernel
        length = read_length(max(positions) + 1, capacity, has_kernel=has_kernel)
        compiled_before = self.count
        begin = time.perf_counter()
        function = self._function(length, rule)
        arrays = cache.arrays
        logits, *drawn = function(
            tokens, mx.array(list(positions)), mx.array(list(active)), periods, bases, indices, *arrays
        )
        # A kernel writes to the buffers, and gives none back.
        kept = len(cache.buffers) if has_kernel else 0
        count = len(drawn) - (len(arrays) - kept)
        cache.arrays = [*arrays[:kept], *drawn[count:]]
        if self.count > compiled_before:
            self.seconds += time.perf_counter() - begin
        if rule is None:
            return logits, None, None
        outcome, *logprobs = drawn[:count]
        return logits, outcome, LogprobArrays(*logprobs) if logprobs else None

    def _compile(self, length: int, rule: DrawRule | None) -> StepFunction:
        """Compile the step for one length of attention and one rule; None skips the draw."""
        places = mx.arange(length)
        bias = None if rule is None else bias_arrays(dict(rule.strategy.logit_bias))
        mx.eval(places, bias)

        def step(
            tokens: mx.array,
            positions: mx.array,
            active: mx.array,
            periods: mx.array,
            bases: mx.array,
            indices: mx.array,
            *arrays: mx.array,
        ) -> list[mx.array]:
            cache = FixedShapes(
                self.cache.form, arrays, len(self.cache.buffers), positions[:, None, None, None], length
            )
            hidden = self.model.run(tokens, self._pass(cache, positions, active, periods, places))
            logits = self.model.logits(hidden)
            changed = cache.states_after if self.model.has_kernel else cache.arrays
            if rule is None:
                return [logits, *changed]
            adjusted = add_bias(logits.astype(mx.float32), bias)
            keys = fold(bases, indices) if bases.ndim == 1 else fold_rows(bases, indices)
            outcome, logprobs = rule(logits, adjusted, keys)
            return [logits, outcome, *(logprobs or ()), *changed]

        return mx.compile(step)

    def _pass(
        self,
        cache: FixedShapes,
        positions: mx.array,
        active: mx.array,
        periods: mx.array,
        places: mx.array,
    ) -> Step:
        config, capacity = self.model.config, self.cache.config.max_seq_len
        nexts = self.model.next_tokens(positions, len(places), capacity, cache.buffers)
        mask = sliding_mask = None
        if nexts is None:
            mask, sliding_mask = seen_by(positions, places, config.sliding_window, config.num_attention_heads)
        return Step(
            cache=cache,
            batch=positions.shape[0],
            length=1,
            offset=positions,
            periods=periods,
            parts=[Part(mask, sliding_mask)],
            states=cache,
            active=active if positions.shape[0] > 1 else None,
            nexts=nexts,
        )
