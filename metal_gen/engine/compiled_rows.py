"""A pass over several successive tokens of one text as a compiled function: model, KV cache and draws.

As in `compiled_step`, shapes are fixed. There is a function for each of a few numbers of rows. The last rows
of a pass may be there to fill it up: what they write is overwritten later, and nobody reads their results.

Axes: R rows, S capacity, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import mlx.core as mx

from metal_gen.cache.hybrid import HybridCache
from metal_gen.cache.kv_cache import KVCache
from metal_gen.engine.compiled_step import MOST_KEPT, read_length
from metal_gen.engine.fixed_shapes import FixedShapes
from metal_gen.models.attention import Part, Step
from metal_gen.models.linear_attention.replay import ReplayOf
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.bias import add_bias, bias_arrays
from metal_gen.sampling.random_keys import fold_rows
from metal_gen.sampling.sampler import DrawRule

# Takes and returns arrays, also in lists, tuples and dictionaries.
TreeFunction = Callable[..., Any]
# What states of a layer of linear attention are computed from: inputs of a pass, and the memory before it.
Layer = tuple[tuple[mx.array, ...], mx.array]

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


@dataclass(frozen=True)
class RowResults:
    """The results of a pass, which may not be computed yet.

    Attributes:
        logits: Logits after each token, (R, V); after the last that counts, (1, V), if only that is needed.
        outcomes: Token ids followed by the `Status` of each, (2 R,) int32; None without a rule.
        hidden: Normalised hidden states, (R, hidden); None unless needed.
    """

    logits: mx.array
    outcomes: mx.array | None
    hidden: mx.array | None


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
        # Computes the states of all layers of linear attention after fewer tokens, by number of rows.
        self._replays: dict[int, TreeFunction] = {}
        # Numbers of rows whose replay has been traced, which happens when it is first needed.
        self._traced: set[int] = set()
        # Makes the replay of each of these layers from arrays.
        self._replay_of: list[ReplayOf] = []

    @property
    def count(self) -> int:
        """Number of functions compiled so far."""
        return self._function.cache_info().misses + len(self._traced)

    def run(
        self,
        tokens: mx.array,
        rule: DrawRule | None,
        base: mx.array,
        indices: mx.array,
        *,
        count: int | None = None,
        needs_hidden: bool = False,
        only_last: bool = False,
    ) -> RowResults:
        """Add tokens to the cache, and draw the token after each of them if the draws follow a fixed rule.

        Args:
            tokens: Token ids, (R,); they need not be computed yet.
            rule: Rule for all draws; None skips them.
            base: `RandomKeys.base` of the text, (2,).
            indices: `words` of the index of each drawn token, (R, 2).
            count: Number of tokens whose results are read; the others fill the pass up. Default: all.
            needs_hidden: Whether to return hidden states.
            only_last: Whether to return the logits after the last token that counts, and nothing else.

        Raises:
            CacheOverflowError: The tokens do not fit. The cache is unchanged.
        """
        cache, rows = self._cache, tokens.size
        cache.claim(rows)
        has_kernel = self._model.has_kernel
        length = read_length(cache.position, cache.config.max_seq_len, has_kernel=has_kernel)
        kind = Kind(rows, length, rule, needs_hidden, only_last)
        count = rows if count is None else count
        function = self._function(kind)
        # With dynamic RoPE, periods depend on the length of the text. What fills a pass up is not part of it.
        periods = self._model.rope.periods(cache.start + count)
        arrays, start, last = cache.arrays, mx.array([cache.start]), mx.array([count - 1])
        results = function(tokens, start, last, periods, base, indices, *arrays)
        kept = len(cache.buffers) if has_kernel else 0
        cache.arrays = [*arrays[:kept], *results["changed"]]
        if isinstance(cache, HybridCache) and 1 < rows <= cache.config.most_replayed:
            self._note_replay(cache, rows, results["layers"])
        return RowResults(results["logits"], results.get("outcomes"), results.get("hidden"))

    def _compile(self, kind: Kind) -> TreeFunction:
        """Compile the passes of a kind."""
        rule = kind.rule
        bias = None if rule is None else bias_arrays(dict(rule.strategy.logit_bias))
        steps, places = mx.arange(kind.rows), mx.arange(kind.length)
        mx.eval(bias, steps, places)

        def run(
            tokens: mx.array,
            start: mx.array,
            last: mx.array,
            periods: mx.array,
            base: mx.array,
            indices: mx.array,
            *arrays: mx.array,
        ) -> dict[str, Any]:
            positions = start + steps
            new = positions[None, None, :, None]
            cache = FixedShapes(self._cache.form, arrays, len(self._cache.buffers), new, kind.length)
            hidden = self._model.run(tokens, self._pass(cache, positions, periods, places))
            logits = self._model.logits(hidden[last] if kind.only_last else hidden)
            changed = cache.states_after if self._model.has_kernel else cache.arrays
            results = {"logits": logits, "changed": changed}
            if rule is not None:
                adjusted = add_bias(logits.astype(mx.float32), bias)
                keys = fold_rows(mx.broadcast_to(base, indices.shape), indices)
                results["outcomes"] = rule(logits, adjusted, keys)[0]
            if kind.needs_hidden:
                results["hidden"] = hidden
            if kind.rows > 1:
                self._replay_of = [replay.of_arrays for replay in cache.replays]
                results["layers"] = [(replay.inputs, replay.memory) for replay in cache.replays]
            return results

        return mx.compile(run)

    def _pass(self, cache: FixedShapes, positions: mx.array, periods: mx.array, places: mx.array) -> Step:
        config, capacity = self._model.config, self._cache.config.max_seq_len
        nexts = self._model.next_tokens(positions, len(places), capacity, cache.buffers, is_one_text=True)
        mask = sliding_mask = None
        if nexts is None:
            ends = positions[:, None]
            mask = places <= ends
            if config.sliding_window is not None:
                sliding_mask = mask & (places > ends - config.sliding_window)
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

    def _note_replay(self, cache: HybridCache, rows: int, layers: Sequence[Layer]) -> None:
        """Tell the cache how to compute the states after fewer tokens of this pass.

        Args:
            cache: The cache.
            rows: R.
            layers: Inputs of each layer of linear attention in the pass, and its memory before.
        """
        function = self._replays.get(rows)
        if function is None:
            function = self._replays[rows] = self._compile_replay(rows)
        cache.note_replay(lambda count: function(mx.array([count]), layers))

    def _compile_replay(self, rows: int) -> TreeFunction:
        """Compile what computes the states of all layers after the first tokens of a pass."""

        def states(count: mx.array, layers: Sequence[Layer]) -> list[mx.array]:
            self._traced.add(rows)
            after = []
            for replay_of, (inputs, memory) in zip(self._replay_of, layers, strict=True):
                conv, memory_after = replay_of(tuple(inputs), memory).masked(count)
                after += [conv.astype(self._cache.dtype), memory_after]
            return after

        return mx.compile(states)
