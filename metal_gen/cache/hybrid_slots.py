"""The slots of a cache for a model with linear attention: each slot has its own states.

States cannot be cut. So a prompt can reuse what another has computed only where the states were kept: at the
points where two prompts part, and only for the last few such beginnings.

Axes: B slots, T taps of the convolution, C channels, H heads, V size of a value, K size of a key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.cache.hybrid import HybridCache
from metal_gen.cache.kv_cache import KVCache
from metal_gen.cache.slots import SlotCache


@dataclass(frozen=True, eq=False)
class _Beginning:
    """A common beginning of prompts, and the states after it, (1, ...) each."""

    tokens: list[int]
    states: list[mx.array]

    def is_of(self, prompt: Sequence[int]) -> bool:
        """Return whether a prompt begins with these tokens."""
        return list(prompt[: len(self.tokens)]) == self.tokens


class HybridSlotCache(SlotCache):
    """Slots with states. Arguments and attributes are those of `SlotCache`."""

    cache: HybridCache

    def __init__(self, cache: HybridCache, stride: int) -> None:
        super().__init__(cache, stride)
        self._empty = cache.empty_states(1)
        cache.state_arrays = cache.empty_states(cache.config.batch_size)
        # New states of some slots, by their first slot, that are not yet in the arrays of all slots.
        self._changes: list[dict[int, mx.array]] = [{} for _ in cache.state_arrays]
        self._before = list(cache.state_arrays)
        self._beginnings: list[_Beginning] = []
        # Positions where a slot's prompt parts from earlier prompts.
        self._partings: list[set[int]] = [set() for _ in self.positions]
        self._due: dict[int, list[int]] = {}

    @property
    def arrays(self) -> list[mx.array]:
        """Arrays of `SlotCache`, and the states of beginnings."""
        kept = [array for beginning in self._beginnings for array in beginning.states]
        return [*super().arrays, *kept]

    def states(self, layer: int, sequences: slice | None) -> tuple[mx.array, mx.array]:
        """Implement `LayerStates.states`."""
        assert sequences is not None
        return self._state(2 * layer, sequences), self._state(2 * layer + 1, sequences)

    def keep(
        self, layer: int, sequences: slice | None, conv: mx.array, memory: mx.array, replay: object
    ) -> None:
        """Implement `LayerStates.keep`."""
        assert sequences is not None
        self._changes[2 * layer][sequences.start] = conv.astype(self.cache.dtype)
        self._changes[2 * layer + 1][sequences.start] = memory

    def begin_pass(self) -> None:
        """Begin a pass as `SlotCache` does, and keep the states before it."""
        self._settle()
        self._before = list(self.cache.state_arrays)
        self._due.clear()

    def end_pass(self) -> None:
        """End a pass as `SlotCache` does, and keep the states of beginnings that it has reached."""
        self._settle()
        for slot, tokens in self._due.items():
            if self.positions[slot] == len(tokens):
                # Copy, because a part of the array would keep all of it in memory.
                states = [mx.contiguous(array[slot : slot + 1]) for array in self.cache.state_arrays]
                self._beginnings.insert(0, _Beginning(tokens, states))
        del self._beginnings[self.cache.config.num_beginnings :]

    def take_back(self, slot: int, count: int) -> None:
        """Go back as `SlotCache` does, but only over what the last pass has added."""
        super().take_back(slot, count)
        for changes, before in zip(self._changes, self._before, strict=True):
            changes[slot] = before[slot : slot + 1]

    def reuse(self, slot: int, prompt: Sequence[int]) -> int:
        """Begin a prompt as `SlotCache` does, with a prefix whose states are kept."""
        self._partings[slot] = {self.reusable_length(held, prompt) for held in self._prompts} - {0}
        length = super().reuse(slot, prompt)
        self._begin_with(slot, prompt[:length])
        return length

    def extend(self, slot: int, prompt: Sequence[int]) -> int:
        """Copy tokens as `SlotCache` does, up to a beginning whose states are kept."""
        known = [len(beginning.tokens) for beginning in self._beginnings if beginning.is_of(prompt)]
        if max(known, default=0) <= self.positions[slot]:
            return 0
        length = super().extend(slot, prompt)
        if length:
            self._begin_with(slot, prompt[: self.positions[slot]])
        return length

    def part_end(self, slot: int, prompt: Sequence[int], others: Sequence[Sequence[int]]) -> int | None:
        """Return where the next part of a prompt should end, for its states to be kept there."""
        partings = self._partings[slot] | {self.reusable_length(prompt, other) for other in others}
        for end in sorted(partings):
            if end > self.positions[slot] and not self._knows(prompt[:end]):
                self._due[slot] = list(prompt[:end])
                return end
        return None

    def _shared(self, slot: int, prompt: Sequence[int]) -> int:
        length = super()._shared(slot, prompt)
        kept = [len(beginning.tokens) for beginning in self._beginnings if beginning.is_of(prompt)]
        return max((each for each in kept if each <= length), default=0)

    def _knows(self, tokens: Sequence[int]) -> bool:
        return any(beginning.tokens == list(tokens) for beginning in self._beginnings)

    def _begin_with(self, slot: int, tokens: Sequence[int]) -> None:
        """Give a slot the states after a beginning, or empty states if there is none."""
        states = self._empty
        for place, beginning in enumerate(self._beginnings):
            if beginning.tokens == list(tokens):
                states = beginning.states
                # Move it to the front, so that the one used last is dropped last.
                self._beginnings.insert(0, self._beginnings.pop(place))
                break
        for changes, state in zip(self._changes, states, strict=True):
            changes[slot] = state

    def _state(self, place: int, sequences: slice) -> mx.array:
        changed = self._changes[place].get(sequences.start)
        if changed is not None:
            return changed
        return self.cache.state_arrays[place][sequences]

    def _settle(self) -> None:
        """Write the changed states to the arrays of all slots."""
        for place, changes in enumerate(self._changes):
            if changes:
                self.cache.state_arrays[place] = _put(self.cache.state_arrays[place], changes)
                changes.clear()


def _put(array: mx.array, changes: Mapping[int, mx.array]) -> mx.array:
    """Return the array (B, ...) with some parts replaced, by their first index."""
    parts, begin = [], 0
    for first, changed in sorted(changes.items(), key=lambda change: change[0]):
        if first > begin:
            parts.append(array[begin:first])
        parts.append(changed)
        begin = first + len(changed)
    if begin < len(array):
        parts.append(array[begin:])
    return parts[0] if len(parts) == 1 else mx.concatenate(parts)


def new_slots(cache: KVCache, stride: int) -> SlotCache:
    """Return the slots of a cache. Arguments are those of `SlotCache`."""
    return HybridSlotCache(cache, stride) if isinstance(cache, HybridCache) else SlotCache(cache, stride)
