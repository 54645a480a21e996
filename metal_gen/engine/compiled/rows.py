"""A pass over several successive tokens of one text as a compiled function: model, KV cache and draws.

As in `compiled.step`, shapes are fixed. There is a function for each of a few numbers of rows. The last rows
of a pass may be there to fill it up: what they write is overwritten later, and nobody reads their results.

Axes: R rows, S capacity, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import mlx.core as mx

from metal_gen.cache.kv_cache import KVCache
from metal_gen.engine.compiled.fixed_shapes import FixedShapes
from metal_gen.engine.compiled.replays import CompiledReplays, ReplayArrays
from metal_gen.engine.compiled.step import MOST_KEPT
from metal_gen.engine.read_lengths import read_length
from metal_gen.models.attention import Part, Step
from metal_gen.models.masks import seen_in_turn
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.draw_rule import DrawRule, RuleDraws
from metal_gen.sampling.random_keys import fold, words_of

# Numbers of rows that are compiled: a token, and the guesses of each depth that is used.
ROWS = (1, 2, 3, 4, 5, 9, 17, 33, 65)


def filled_up(rows: int, most: int) -> int:
    """Return how many rows a pass over so many tokens has, of at most `most`."""
    return min(next((count for count in ROWS if count >= rows), rows), max(most, rows))


@dataclass(frozen=True)
class Kind:
    """What a function is compiled for.

    Attributes:
        rows: R.
        length: Number of positions that attention may read.
        rule: Rule for the draws; None to return logits without draws.
        needs_hidden: Whether to return hidden states.
        only_last: Whether to return the logits of one row.
    """

    rows: int
    length: int
    rule: DrawRule | None
    needs_hidden: bool
    only_last: bool


class RowInputs(NamedTuple):
    """What a pass is computed from, beside the cache.

    Attributes:
        tokens: Token ids, (R,).
        start: Position of the first one, (1,).
        last: Row of the last token that counts, (1,).
        periods: Periods of the rotary embedding.
        base: `RandomKeys.base` of the text, (2,); None without draws.
        indices: `words` of the index of each drawn token, (R, 2); None without draws.
    """

    tokens: mx.array
    start: mx.array
    last: mx.array
    periods: mx.array
    base: mx.array | None
    indices: mx.array | None


class RowResults(NamedTuple):
    """The results of a pass, which may not be computed yet.

    Attributes:
        logits: Logits after each token, (R, V); after the last that counts, (1, V), if only that is needed.
        outcomes: Token ids followed by the `Status` of each, (2 R,) int32; None without draws.
        hidden: Normalized hidden states, (R, hidden); None unless needed.
    """

    logits: mx.array
    outcomes: mx.array | None
    hidden: mx.array | None


# The fields of `RowResults`, which MLX would make anew slowly; what `KVCache.take_replaced` takes; and what
# the states of each layer of linear attention can be computed from again.
PassArrays = tuple[mx.array, mx.array | None, mx.array | None, Sequence[mx.array], Sequence[ReplayArrays]]
PassFunction = Callable[[RowInputs, Sequence[mx.array]], PassArrays]


class CompiledRows:
    """Compiled passes of one model over a cache of one text.

    Args:
        model: Model with its weights.
        cache: Cache whose buffers go through the compiled functions and come back from them.
    """

    def __init__(self, model: Transformer, cache: KVCache) -> None:
        self._model = model
        self._cache = cache
        self._function = lru_cache(maxsize=MOST_KEPT)(self._compile)
        self._replays = CompiledReplays(cache.dtype)
        self._compiled = 0

    @property
    def count(self) -> int:
        """Number of functions compiled so far."""
        return self._compiled + self._replays.count

    def run(
        self,
        tokens: mx.array,
        draws: RuleDraws | None = None,
        *,
        count: int | None = None,
        needs_hidden: bool = False,
        only_last: bool = False,
    ) -> RowResults:
        """Add tokens to the cache, and draw the token after each of them if the draws follow a fixed rule.

        Args:
            tokens: Token ids, (R,); they need not be computed yet.
            draws: Draws of the tokens after them; None to return logits alone.
            count: Number of tokens whose results are read; the others fill the pass up. Default: all.
            needs_hidden: Whether to return hidden states.
            only_last: Whether to return the logits after the last token that counts, and nothing else.

        Raises:
            CacheOverflowError: The tokens do not fit. The cache is unchanged.
        """
        cache, rows = self._cache, tokens.size
        cache.claim(rows)
        length = read_length(cache.position, cache.config.max_seq_len, has_kernel=self._model.has_kernel)
        kind = Kind(rows, length, None if draws is None else draws.rule, needs_hidden, only_last)
        count = rows if count is None else count
        inputs = RowInputs(
            tokens,
            start=mx.array([cache.start]),
            last=mx.array([count - 1]),
            # With dynamic RoPE, periods depend on the length of the text, without what fills the pass up.
            periods=self._model.rope.periods(cache.start + count),
            base=None if draws is None else draws.base,
            indices=None if draws is None else words_of(range(draws.first, draws.first + rows)),
        )
        logits, outcomes, hidden, replaced, layers = self._function(kind)(inputs, cache.arrays)
        cache.take_replaced(replaced)
        if layers:
            cache.note_replay(partial(self._replays.states, layers))
        return RowResults(logits, outcomes, hidden)

    def _compile(self, kind: Kind) -> PassFunction:
        """Compile the passes of a kind."""
        self._compiled += 1
        rule = kind.rule
        steps, places = mx.arange(kind.rows), mx.arange(kind.length)
        mx.eval(steps, places)

        def run(inputs: RowInputs, arrays: Sequence[mx.array]) -> PassArrays:
            positions = inputs.start + steps
            new = positions[None, None, :, None]
            cache = FixedShapes(self._cache.form, arrays, len(self._cache.buffers), new, kind.length)
            step = self._pass(cache, positions, inputs.periods, places)
            hidden = self._model.run(inputs.tokens, step)
            logits = self._model.logits(hidden[inputs.last] if kind.only_last else hidden)
            outcomes = None
            if rule is not None:
                assert inputs.base is not None
                assert inputs.indices is not None
                outcomes, _ = rule(logits, rule.adjusted(logits), fold(inputs.base, inputs.indices))
            layers = self._replays.note(cache.replays) if kind.rows > 1 else []
            return logits, outcomes, hidden if kind.needs_hidden else None, cache.replaced, layers

        return mx.compile(run)

    def _pass(self, cache: FixedShapes, positions: mx.array, periods: mx.array, places: mx.array) -> Step:
        config = self._model.config
        nexts = self._model.next_tokens(positions, len(places), cache.buffers, is_one_text=True)
        mask = sliding_mask = None
        if nexts is None:
            mask, sliding_mask = seen_in_turn(positions, places, config.sliding_window)
        return Step(
            cache=cache,
            batch=1,
            length=positions.size,
            offset=positions[:1],
            periods=periods,
            parts=[Part(mask, sliding_mask)],
            states=cache,
            nexts=nexts,
        )
