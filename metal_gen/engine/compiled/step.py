"""One decode step as a single compiled function: model, KV cache and sampling.

Python builds the graph of a step once per range of positions. MLX then replays it, with its element-wise
operations fused. This requires fixed shapes: attention reads a part of the cache whose length grows in a
few strides, and a mask hides the places after the position. A kernel for attention needs neither.

Axes: B sequences, H key/value heads, S capacity, D head size, V vocabulary.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import mlx.core as mx

from metal_gen.cache.kv_cache import KVCache
from metal_gen.engine.compiled.fixed_shapes import FixedShapes
from metal_gen.engine.read_lengths import read_length
from metal_gen.models.attention import Part, Step
from metal_gen.models.masks import seen_by
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.allowed import Allowed, Limits
from metal_gen.sampling.draw_rule import Draw, DrawRule
from metal_gen.sampling.logprobs import LogprobArrays
from metal_gen.sampling.random_keys import fold, words
from metal_gen.sampling.sampler import Sampler

# A long text needs about a dozen functions. Several sets are kept, for texts that are drawn in turns.
MOST_KEPT = 64


class StepInputs(NamedTuple):
    """What a step is computed from, beside the cache.

    Attributes:
        tokens: Token ids, (B,).
        positions: Position of each token, (B,).
        active: Whether each sequence has a token, (B,); None if all have one.
        periods: Periods of the rotary embedding.
        bases: `RandomKeys.base` of each sequence, (B, 2), or of the only one, (2,); None without draws.
        indices: `words` of the index of each token that is drawn, in the same shape; None without draws.
        allowed: Tokens that all sequences draw from; None for all tokens.
    """

    tokens: mx.array
    positions: mx.array
    active: mx.array | None
    periods: mx.array
    bases: mx.array | None
    indices: mx.array | None
    allowed: Allowed | None


class StepResults(NamedTuple):
    """The results of a step, which may not be computed yet.

    Attributes:
        logits: Logits, (B, V).
        outcomes: Token ids followed by the `Status` of each, (2 B,) int32; None without draws.
        logprobs: Log-probabilities, if the rule has them.
        first_part: Of a step without draws, an array that is there after about a third of it. Handed over
            first, it gives the device work before the rest follows.
    """

    logits: mx.array
    outcomes: mx.array | None = None
    logprobs: LogprobArrays | None = None
    first_part: mx.array | None = None


# The fields of `StepResults`, which MLX would make anew slowly, and what `KVCache.take_replaced` takes.
StepArrays = tuple[mx.array, mx.array | None, LogprobArrays | None, mx.array | None, Sequence[mx.array]]
# Takes the inputs and the arrays of a cache.
StepFunction = Callable[[StepInputs, Sequence[mx.array]], StepArrays]


@dataclass(frozen=True)
class _Pass(Step):
    """A pass that notes the results of its stages.

    Attributes:
        stages: One result of each stage so far.
    """

    stages: list[mx.array] = field(default_factory=list)

    def end_stage(self, *results: mx.array) -> None:
        """Note one result of the stage; a compiled pass cannot compute it before the next is built."""
        self.stages.append(results[0])

    @property
    def first_part(self) -> mx.array:
        """See `StepResults`."""
        return self.stages[len(self.stages) // 3]


class CompiledStep:
    """The compiled step of one model over one cache, for all its sequences at once.

    Args:
        model: Model with its weights.
        cache: Cache whose buffers go through the compiled function and come back from it.

    Attributes:
        seconds: Time spent on compiling functions, in seconds.
        count: Number of functions compiled so far.
    """

    def __init__(self, model: Transformer, cache: KVCache) -> None:
        self.model = model
        self.cache = cache
        self.seconds = 0.0
        self.count = 0
        self._function = lru_cache(maxsize=MOST_KEPT)(self._compile)

    def draw_next(
        self, token: mx.array, sampler: Sampler, index: int, allowed: Allowed | None = None
    ) -> Draw:
        """Add one token and draw the next, as `Decoder.draw_next` does. The cache must hold one sequence.

        The draw must follow the sampler's rule alone.
        """
        results = self._run_one(token, sampler.rule, sampler.keys.base, words(index), allowed)
        assert results.outcomes is not None
        return Draw(results.logits, index, results.outcomes, results.logprobs, allowed)

    def step(self, token: mx.array) -> StepResults:
        """Add one token as `Decoder.step` does. The cache must hold one sequence."""
        return self._run_one(token)

    def _run_one(
        self,
        token: mx.array,
        rule: DrawRule | None = None,
        base: mx.array | None = None,
        index: mx.array | None = None,
        allowed: Allowed | None = None,
    ) -> StepResults:
        self.cache.claim(1)
        periods = self.model.rope.periods(self.cache.position)
        return self.run(
            token, [self.cache.start], periods, rule=rule, bases=base, indices=index, allowed=allowed
        )

    def run(
        self,
        tokens: mx.array,
        positions: Sequence[int],
        periods: mx.array,
        *,
        active: Sequence[bool] | None = None,
        rule: DrawRule | None = None,
        bases: mx.array | None = None,
        indices: mx.array | None = None,
        allowed: Allowed | None = None,
    ) -> StepResults:
        """Add one token to each sequence, and draw the next one if the draw follows a fixed rule.

        Args:
            tokens: Token ids, (B,); they need not be computed yet.
            positions: Position of each token.
            periods: Periods of the rotary embedding.
            active: Which sequences have a token; None if all have one. Results of the others are not used.
            rule: Rule for drawing all sequences; None skips the draw.
            bases: As for `StepInputs`.
            indices: As for `StepInputs`.
            allowed: As for `StepInputs`.
        """
        cache = self.cache
        length = read_length(max(positions) + 1, cache.config.max_seq_len, has_kernel=self.model.has_kernel)
        compiled_before = self.count
        begin = time.perf_counter()
        function = self._function(length, rule, Limits.of(allowed))
        inputs = StepInputs(
            tokens,
            mx.array(list(positions)),
            None if active is None else mx.array(list(active)),
            periods,
            bases,
            indices,
            allowed,
        )
        logits, outcomes, logprobs, first_part, replaced = function(inputs, cache.arrays)
        cache.take_replaced(replaced)
        if self.count > compiled_before:
            self.seconds += time.perf_counter() - begin
        return StepResults(logits, outcomes, logprobs, first_part)

    def _compile(self, length: int, rule: DrawRule | None, limits: Limits) -> StepFunction:
        """Compile the step for one length of attention, and one rule and the limits of its draws.

        Without a rule, nothing is drawn.
        """
        self.count += 1
        places = mx.arange(length)
        mx.eval(places)

        def step(inputs: StepInputs, arrays: Sequence[mx.array]) -> StepArrays:
            new = inputs.positions[:, None, None, None]
            cache = FixedShapes(self.cache.form, arrays, len(self.cache.buffers), new, length)
            one_pass = self._pass(cache, inputs, places)
            logits = self.model.logits(self.model.run(inputs.tokens, one_pass))
            if rule is None:
                return logits, None, None, one_pass.first_part, cache.replaced
            assert inputs.bases is not None
            assert inputs.indices is not None
            keys = fold(inputs.bases, inputs.indices)
            outcome = rule.among(logits, rule.adjusted(logits), inputs.allowed, keys)
            return logits, *outcome, None, cache.replaced

        return mx.compile(step)

    def _pass(self, cache: FixedShapes, inputs: StepInputs, places: mx.array) -> _Pass:
        config = self.model.config
        positions, batch = inputs.positions, inputs.positions.shape[0]
        nexts = self.model.next_tokens(positions, len(places), cache.buffers)
        mask = sliding_mask = None
        if nexts is None:
            mask, sliding_mask = seen_by(positions, places, config.sliding_window, config.num_attention_heads)
        return _Pass(
            cache=cache,
            batch=batch,
            length=1,
            offset=positions,
            periods=inputs.periods,
            parts=[Part(mask, sliding_mask)],
            states=cache,
            active=inputs.active if batch > 1 else None,
            nexts=nexts,
        )
