"""Guesses of layers for multi-token prediction, one after another, as one compiled function.

The kernel for attention writes to the cache of the layers, so nothing is copied, and nobody waits between two
guesses. Without the kernel, MLX would copy the cache at each guess.

Axes: R pairs of a state and the token after it, N guesses.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import mlx.core as mx

from metal_gen.cache.kv_cache import KVCache
from metal_gen.engine.compiled.rows import filled_up
from metal_gen.engine.compiled.step import MOST_KEPT
from metal_gen.engine.read_lengths import read_length
from metal_gen.models.mtp import MtpHeads
from metal_gen.models.transformer import Transformer
from metal_gen.sampling import blocks
from metal_gen.sampling.draw_rule import DrawRule, RuleDraws, draw_once
from metal_gen.sampling.random_keys import fold, uniform
from metal_gen.sampling.strategy import SamplingStrategy

# What no token is equal to.
NO_TOKEN = -1


class Pairs(NamedTuple):
    """Pairs of successive positions of a text. They count up to the first token that is not as guessed.

    Attributes:
        drawn: Token of each pair, (R,).
        guessed: What each of these tokens but the last was guessed to be, (R - 1,).
        hidden: State of each pair, (R, hidden).
    """

    drawn: mx.array
    guessed: mx.array
    hidden: mx.array


class HeadInputs(NamedTuple):
    """What guesses are computed from, beside the cache.

    Attributes:
        pairs: The pairs.
        start: Place of the first pair in the cache, (1,).
        first: Index of the token of the first pair, (1,).
        periods: Periods of the rotary embedding.
        base: `RandomKeys.base` of the text, (2,).
    """

    pairs: Pairs
    start: mx.array
    first: mx.array
    periods: mx.array
    base: mx.array


# Takes the inputs and the buffers of the cache, which a kernel writes to. Returns the guesses, (N,).
HeadFunction = Callable[[HeadInputs, Sequence[mx.array]], mx.array]


class CompiledHeads:
    """Compiled guesses of one model's layers for multi-token prediction.

    Args:
        target: Model that the layers belong to.
        heads: The layers, with the kernel.
        cache: Cache of one layer.
        usual_rows: Number of pairs up to which functions do not differ, at least two.
        most_rows: Most pairs that come at once.
    """

    def __init__(
        self, target: Transformer, heads: MtpHeads, cache: KVCache, *, usual_rows: int, most_rows: int
    ) -> None:
        # With one pair, the function would compare no tokens: MLX 0.32.2 crashes at `cumsum` of nothing.
        assert usual_rows > 1, usual_rows
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

    def guess(self, tokens: Sequence[int], hidden: mx.array, draws: RuleDraws, count: int) -> mx.array:
        """Add pairs to the cache, and guess from the last one on.

        Args:
            tokens: Token of each pair.
            hidden: State of each pair, (pairs, hidden).
            draws: Draws of the guesses.
            count: N.

        Returns:
            Guesses, (N,), not computed yet. Their own pairs are beyond the cache's position.
        """
        pairs = len(tokens)
        filling = self.rows(pairs) - pairs
        self._cache.claim(pairs)
        filled = Pairs(
            drawn=mx.array([*tokens, *[0] * filling], mx.int32),
            guessed=mx.array([*tokens[:-1], *[NO_TOKEN] * filling], mx.int32),
            hidden=mx.pad(hidden, [(0, filling), (0, 0)]) if filling else hidden,
        )
        return self._run(filled, self._cache.start, draws._replace(first=draws.first - pairs), count)

    def can_follow(self, pairs: int, guesses: int) -> bool:
        """Return whether `guess_after` can be used for at most so many pairs."""
        position, periods = self._cache.position, self._heads.rope.periods
        is_usual = 1 < pairs <= self._usual_rows and pairs + guesses - 1 <= self._cache.remaining
        return is_usual and periods(position + 1) is periods(position + pairs)

    def guess_after(self, pairs: Pairs, draws: RuleDraws, count: int) -> mx.array:
        """Guess after a pass over guesses that is not read yet: the device finds those that are right.

        Whoever has read the pass claims the positions of the tokens that it added to the text.

        Args:
            pairs: The tokens that the target has drawn, the guesses of the pass, and its states.
            draws: Draws of the tokens of these pairs.
            count: N.

        Returns:
            Guesses, (N,), after the first drawn token that is not as guessed.
        """
        return self._run(pairs, self._cache.position, draws, count)

    def _run(self, pairs: Pairs, start: int, draws: RuleDraws, count: int) -> mx.array:
        """Guess after pairs, the first of which goes to place `start` and has the first draw's token."""
        cache, rows = self._cache, pairs.drawn.size
        cache.let_step_run()
        length = read_length(start + rows + count - 1, cache.config.max_seq_len, has_kernel=True)
        inputs = HeadInputs(
            pairs,
            start=mx.array([start], mx.int32),
            first=mx.array([draws.first], mx.int32),
            # Those of the position after the pairs; where their number is not known, all have the same.
            periods=self._heads.rope.periods(max(cache.position, start + 1)),
            base=draws.base,
        )
        guesses = self._function(rows, count, length, draws.rule)(inputs, cache.buffers)
        cache.note_step(guesses)
        return guesses

    def _compile(self, rows: int, guesses: int, length: int, rule: DrawRule) -> HeadFunction:
        """Compile the guesses after so many pairs, for one length of attention and one rule."""
        target, heads = self._target, self._heads
        steps, places = mx.arange(rows), mx.arange(guesses)
        mx.eval(steps, places)

        def run(inputs: HeadInputs, buffers: Sequence[mx.array]) -> mx.array:
            (drawn, guessed, hidden), start, first, periods, base = inputs

            def states(
                tokens: mx.array, hidden: mx.array, positions: mx.array, *, is_one_text: bool = False
            ) -> mx.array:
                nexts = target.next_tokens(positions, length, buffers, is_one_text=is_one_text)
                assert nexts is not None
                return heads.by_kernel(target, tokens, hidden, self._cache, nexts, periods)

            # Pairs that count: those of the tokens up to the first that is not as guessed.
            count = 1 + (mx.cumsum(drawn[:-1] != guessed) == 0).sum(keepdims=True)
            numbers = None
            if not rule.strategy.is_greedy:
                low = (first + count + places).astype(mx.uint32)
                words = mx.stack([mx.zeros_like(low), low], axis=1)
                numbers = uniform(fold(base, words))
            state = mx.take(states(drawn, hidden, start + steps, is_one_text=True), count - 1, axis=0)
            found: list[mx.array] = []
            for place in range(guesses):
                if found:
                    state = states(found[-1], state, start + count + (place - 1))
                number = None if numbers is None else numbers[place : place + 1]
                found.append(_token(rule.adjusted(target.logits(state)), rule.strategy, number))
            return mx.concatenate(found)

        return mx.compile(run)


def _token(adjusted: mx.array, strategy: SamplingStrategy, number: mx.array | None) -> mx.array:
    """Return the token that a `DrawRule` draws, (1,) int32. A guess does not need its status."""
    if number is None:
        return blocks.argmax(adjusted)[0].astype(mx.int32)
    return draw_once(adjusted, strategy, number, whole=False)[0].astype(mx.int32)
