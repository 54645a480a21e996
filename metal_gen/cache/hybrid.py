"""The cache of a model with linear attention: keys and values, and states of constant size.

A state summarizes the whole text so far for its layer, so it cannot be taken back token by token. The
cache keeps the states of a few moments: now, before the last pass or passes, and at the last two marks. For
moments within the last pass, whose tokens may be guesses, it computes them again. The states of several
texts at once are in `hybrid_slots`.

Axes: B sequences, T taps of the convolution, C channels, H heads, V size of a value, K size of a key.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from metal_gen.cache.config import MOST_MARKS, HybridCacheConfig, KVCacheConfig
from metal_gen.cache.kv_cache import KVCache
from metal_gen.cache.stored_text import StoredArray


@dataclass(frozen=True, eq=False)
class _Moment:
    """The states after `position` tokens."""

    position: int
    states: list[mx.array]


@dataclass(eq=False)
class _LastPass:
    """The last pass, and how to compute the states after its first few tokens again, if they may be needed.

    Attributes:
        start: Position before it.
        layers: Computes the states of each layer.
        whole: Computes the states of all layers, after a compiled pass.
    """

    start: int
    layers: dict[int, Callable[[int], tuple[mx.array, mx.array]]] = field(default_factory=dict)
    whole: Callable[[int], Sequence[mx.array]] | None = None

    def has_middle(self, position: int) -> bool:
        """Return whether the states at a position of its middle can be computed."""
        return position > self.start and bool(self.layers or self.whole)


class HybridCache(KVCache):
    """Keys and values of some layers, and states of the others.

    Attributes:
        state_arrays: For each layer in turn, the last inputs of its convolution (B, T - 1, C), and its memory
            (B, H, V, K).
    """

    config: HybridCacheConfig
    can_be_cut = False

    def __init__(self, config: HybridCacheConfig) -> None:
        """Allocate keys and values. Each pass makes new states, of one sequence unless slots are taken."""
        super().__init__(config)
        self._empty = _Moment(0, self.empty_states(1))
        self.state_arrays = list(self._empty.states)
        self._recent: list[_Moment] = []
        self._last = _LastPass(0)
        self._marks: list[_Moment] = []

    def empty_states(self, count: int) -> list[mx.array]:
        """Return the states of so many sequences without tokens, which all layers share."""
        conv = mx.zeros((count, *self.config.conv_state), self.dtype)
        memory = mx.zeros((count, *self.config.memory), mx.float32)
        mx.eval(conv, memory)
        return [conv, memory] * self.config.num_linear_layers

    @property
    def arrays(self) -> list[mx.array]:
        """All arrays that a pass reads and changes: buffers, then states."""
        return [*self.buffers, *self.state_arrays]

    def take_replaced(self, replaced: Sequence[mx.array]) -> None:
        """Take what a compiled pass gives in place of `arrays`, or of states if a kernel wrote to buffers."""
        begin = len(replaced) - len(self.state_arrays)
        if begin:
            self.buffers = list(replaced[:begin])
        self.state_arrays = list(replaced[begin:])

    def states(self, layer: int, sequences: slice | None) -> tuple[mx.array, mx.array]:
        """Implement `LayerStates.states`, for all sequences."""
        return self.state_arrays[2 * layer], self.state_arrays[2 * layer + 1]

    def keep(
        self,
        layer: int,
        sequences: slice | None,
        conv: mx.array,
        memory: mx.array,
        replay: Callable[[int], tuple[mx.array, mx.array]],
    ) -> None:
        """Implement `LayerStates.keep`."""
        self.state_arrays[2 * layer : 2 * layer + 2] = [conv.astype(self.dtype), memory]
        if self._may_be_cut_short:
            self._last.layers[layer] = replay

    def note_replay(self, replay: Callable[[int], Sequence[mx.array]]) -> None:
        """Remember how to compute all states after the first few tokens of the last pass again."""
        if self._may_be_cut_short:
            self._last.whole = replay

    @property
    def _may_be_cut_short(self) -> bool:
        """Whether the last pass is one that can be taken back in part."""
        return 1 < self.position - self.start <= self.config.most_replayed

    def claim(self, length: int) -> None:
        """Reserve positions as `KVCache.claim` does, and keep the states before them."""
        before = _Moment(self.position, list(self.state_arrays))
        super().claim(length)
        self._recent = [*self._recent, before][-self.config.recent_passes :]
        self._last = _LastPass(before.position)

    def mark(self) -> None:
        """Keep the states at this position, for `take_back` to come back to; the last two are kept."""
        earlier = [mark for mark in self._marks if mark.position < self.position]
        self._marks = [*earlier, _Moment(self.position, list(self.state_arrays))][-MOST_MARKS:]

    def reachable(self, position: int) -> int:
        """Return the last position up to this one whose states are kept or can be computed again."""
        if position >= self.position:
            return self.position
        if self._last.has_middle(position):
            return position
        return max(moment.position for moment in self._moments(position))

    def take_back(self, count: int) -> None:
        """Go back as `KVCache.take_back` does, but only to a position that is reachable."""
        target = self.position - count
        if 0 <= target != self.reachable(target):
            raise ValueError(f"the states after {target} tokens have not been kept")
        super().take_back(count)
        if count == 0:
            return
        moments = self._moments(target)
        last = max(moments, key=lambda moment: moment.position)
        if last.position == target:
            self.state_arrays = list(last.states)
        else:
            self._replay(target - self._last.start)
        # States of later moments belong to a text that no longer exists.
        self._recent = [moment for moment in self._recent if moment.position < target]
        self._marks = [mark for mark in self._marks if mark in moments]
        if target <= self._last.start:
            self._last = _LastPass(self._last.start)

    def _replay(self, count: int) -> None:
        """Compute the states after the first tokens of the last pass again, from the states before it."""
        if self._last.whole is not None:
            self.state_arrays = list(self._last.whole(count))
        for layer, replay in self._last.layers.items():
            conv, memory = replay(count)
            self.state_arrays[2 * layer : 2 * layer + 2] = [conv.astype(self.dtype), memory]

    def layout(self, length: int) -> list[StoredArray]:
        """Describe keys, values and states as `KVCache.layout` does."""
        conv, memory = (1, *self.config.conv_state), (1, *self.config.memory)
        states = [
            each
            for layer in range(self.config.num_linear_layers)
            for each in (
                StoredArray(f"{layer}.conv", conv, self.dtype),
                StoredArray(f"{layer}.memory", memory, mx.float32),
            )
        ]
        return [*super().layout(length), *states]

    def stored(self, length: int) -> Iterator[mx.array]:
        """Yield keys, values and states; there has to be a mark at `length`."""
        states = next(mark.states for mark in self._marks if mark.position == length)
        yield from super().stored(length)
        yield from map(mx.contiguous, states)

    def restore(self, length: int, arrays: Iterable[mx.array]) -> None:
        """Begin a text from storage as `KVCache.restore` does; the arrays have to end at `length`."""
        given = iter(arrays)
        super().restore(length, given)
        self.state_arrays = list(given)
        self.evaluate()
        self.mark()

    def _moments(self, position: int) -> list[_Moment]:
        """Return the kept moments up to a position."""
        kept = (self._empty, *self._recent, *self._marks)
        return [moment for moment in kept if moment.position <= position]


def new_cache(config: KVCacheConfig) -> KVCache:
    """Allocate the cache of this size."""
    return HybridCache(config) if isinstance(config, HybridCacheConfig) else KVCache(config)
