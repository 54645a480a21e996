"""What the layers for multi-token prediction see of a text: pairs of a state and the token after it.

The state is the target's at a position. The layers keep keys and values of all pairs of the text.

Axes: N pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx

from metal_gen.cache.kv_cache import KVCache
from metal_gen.models.mtp import MtpHeads
from metal_gen.models.transformer import Transformer


@dataclass(frozen=True)
class _Stretch:
    """Pairs of successive positions of the text, from `first` on, in the cache from `place` on."""

    first: int
    place: int


class Waiting(NamedTuple):
    """Pairs of successive positions that are not in the cache yet.

    Attributes:
        first: Position of the first.
        tokens: Their tokens.
        states: Their states, (n, hidden) each.
    """

    first: int
    tokens: list[int]
    states: list[mx.array]

    @property
    def end(self) -> int:
        """Position after the last."""
        return self.first + len(self.tokens)

    @property
    def hidden(self) -> mx.array:
        """Their states as one array, (N, hidden)."""
        return self.states[0] if len(self.states) == 1 else mx.concatenate(self.states)


class TextPairs:
    """The pairs of one text. The pair of position t has the state there, and token t + 1.

    Positions for which no states came have no pair; the cache has no gap there.

    Args:
        target: Model that the layers belong to.
        heads: The layers.
        cache: Empty cache of one layer.
        most_waiting: Pairs that wait for the next guess. More are computed at once.

    Attributes:
        waiting: Pairs that are not in the cache yet, if any.
    """

    def __init__(self, target: Transformer, heads: MtpHeads, cache: KVCache, most_waiting: int) -> None:
        self._target = target
        self._heads = heads
        self._cache = cache
        self._most_waiting = most_waiting
        self._stretches: list[_Stretch] = []
        self.waiting: Waiting | None = None

    def wait_up_to(self, end: int) -> bool:
        """Return whether the pairs that wait are those up to a position."""
        return self.waiting is not None and self.waiting.end == end

    def add(self, first: int, tokens: Sequence[int], hidden: mx.array) -> None:
        """Add the pairs of successive positions, (N, hidden). They wait for the next guess."""
        if self.waiting is not None and self.waiting.end != first:
            self.run_waiting()
        before = self.waiting or Waiting(first, [], [])
        self.waiting = Waiting(before.first, [*before.tokens, *tokens], [*before.states, hidden])
        if len(self.waiting.tokens) >= self._most_waiting:
            self.run_waiting()
            self._cache.evaluate()

    def run_waiting(self) -> mx.array:
        """Add the waiting pairs to the cache, and return the state of the last, (1, hidden)."""
        waiting = self.take_waiting()
        return self._heads(self._target, mx.array(waiting.tokens), waiting.hidden, self._cache)[-1:]

    def take_waiting(self) -> Waiting:
        """Return the waiting pairs, which the caller adds to the cache."""
        assert self.waiting is not None
        waiting, self.waiting = self.waiting, None
        self._note(waiting.first)
        return waiting

    def run(self, first: int, tokens: Sequence[int], hidden: mx.array) -> None:
        """Add pairs to the cache, without the states that they give: keys and values alone are computed."""
        self._note(first)
        self._heads(self._target, mx.array(list(tokens)), hidden, self._cache)
        self._cache.evaluate()

    def _note(self, first: int) -> None:
        """Note that the pairs of successive positions will be added to the cache."""
        place = self._cache.position
        last = self._stretches[-1] if self._stretches else None
        if last is None or first - last.first != place - last.place:
            self._stretches.append(_Stretch(first, place))

    def cut(self, end: int) -> None:
        """Keep only the pairs of positions before `end`."""
        if self.waiting is not None:
            first, tokens, _ = self.waiting
            kept = max(end - first, 0)
            self.waiting = Waiting(first, tokens[:kept], [self.waiting.hidden[:kept]]) if kept else None
        place = self._cache.position
        while self._stretches and self._stretches[-1].first >= end:
            place = self._stretches.pop().place
        if self._stretches:
            last = self._stretches[-1]
            place = min(place, last.place + end - last.first)
        # A step may still compute with the cache. Without waiting for it, the next write would copy it.
        self._cache.evaluate()
        self._cache.take_back(self._cache.position - place)
