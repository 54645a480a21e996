"""The sequences that scored texts are written to: the slots of a cache, or one sequence alone.

Both keep track of the beginning that a sequence holds, so that texts with the same beginning share it.
"""

from collections.abc import Sequence
from typing import Protocol

import mlx.core as mx

from metal_gen.cache.common_prefix import common_parts_length
from metal_gen.cache.kv_cache import KVCache
from metal_gen.cache.slots import SlotCache
from metal_gen.device.backend import runs_on_cpu
from metal_gen.device.extra_memory import wait_for_release
from metal_gen.engine.slot_pass import PromptPart, run_pass
from metal_gen.models.transformer import Transformer


class Sequences(Protocol):
    """A fixed number of sequences in a cache.

    Attributes:
        model: Model that writes to them.
        count: Number of sequences.
        stride: Most tokens of a part; a part ends at a multiple of it, or where the shared tokens end.
    """

    model: Transformer
    count: int
    stride: int

    def begin(self, slot: int, shared: Sequence[int]) -> None:
        """Begin a text in a sequence, with the prefix of `shared` that it already holds."""

    def extend(self, slot: int, shared: Sequence[int]) -> None:
        """Copy the rest of `shared` from another sequence, as far as one holds it."""

    def position(self, slot: int) -> int:
        """Return the number of tokens in a sequence."""

    def run(self, parts: Sequence[PromptPart], length: int) -> mx.array:
        """Compute parts of texts.

        Args:
            parts: Each begins at the position of its sequence.
            length: Length of the whole texts, as the rotary embedding needs it.

        Returns:
            (R, hidden) normalized hidden states of all tokens, computed.
        """

    def hold(self, slot: int, shared: Sequence[int]) -> None:
        """Let other texts have the part of `shared` that a sequence now holds."""


class SlotSequences:
    """The slots of a cache, in which several texts are computed together.

    Args:
        model: Model with its weights; from `with_independent_rows` if results must not depend on other texts.
        cache: Cache with a slot for each of its sequences.
        stride: Tokens of a part. Beginnings are shared in multiples of it, or whole.
    """

    def __init__(self, model: Transformer, cache: KVCache, stride: int) -> None:
        self.model = model
        self.count = cache.config.batch_size
        self.stride = stride
        self._slots = SlotCache(cache, stride)
        self._held: list[Sequence[int]] = [[] for _ in range(self.count)]

    def begin(self, slot: int, shared: Sequence[int]) -> None:
        """See `Sequences`."""
        kept = in_common(self._held[slot], shared, self.stride)
        self._slots.positions[slot] = kept
        self._held[slot] = shared[:kept]

    def extend(self, slot: int, shared: Sequence[int]) -> None:
        """See `Sequences`."""
        lengths = [in_common(held, shared, self.stride) for held in self._held]
        length = max(lengths)
        if length > self.position(slot):
            self._slots.copy(lengths.index(length), slot, length)
            self._held[slot] = shared[:length]

    def position(self, slot: int) -> int:
        """See `Sequences`."""
        return self._slots.positions[slot]

    def run(self, parts: Sequence[PromptPart], length: int) -> mx.array:
        """See `Sequences`."""
        for part in parts:
            self._slots.claim(part.slot, len(part.tokens))
        periods = self.model.rope.periods(length)
        hidden = run_pass(self.model, self._slots, periods, [], parts, in_stages=runs_on_cpu())
        mx.eval(hidden, self._slots.cache.buffers)
        wait_for_release()
        return hidden

    def hold(self, slot: int, shared: Sequence[int]) -> None:
        """See `Sequences`."""
        self._held[slot] = shared[: self.position(slot)]


class OneSequence:
    """The first sequence of a cache of any kind, for one text at a time.

    Args:
        model: Model with its weights.
        cache: Cache of the model; it is cleared by the first text.
        chunk_size: Tokens of a part.
    """

    count = 1

    def __init__(self, model: Transformer, cache: KVCache, chunk_size: int) -> None:
        self.model = model
        self.stride = chunk_size
        self._cache = cache
        self._held: Sequence[int] = []
        self._marked_at = 0

    def begin(self, slot: int, shared: Sequence[int]) -> None:
        """See `Sequences`."""
        common = in_common(self._held, shared, 1)
        # A model with linear attention cannot go back to every position.
        self._cache.clear(keep=self._cache.reachable(common))
        self._held = shared[: self._cache.position]
        self._marked_at = len(shared)

    def extend(self, slot: int, shared: Sequence[int]) -> None:
        """See `Sequences`; there is no other sequence."""

    def position(self, slot: int) -> int:
        """See `Sequences`."""
        return self._cache.position

    def run(self, parts: Sequence[PromptPart], length: int) -> mx.array:
        """See `Sequences`."""
        hidden = []
        for part in parts:
            tokens = mx.array([list(part.tokens)], dtype=mx.int32)
            # On a CPU a pass takes seconds, and a signal is handled between two layers.
            rows = self.model(tokens, self._cache, sequence_length=length, in_layers=runs_on_cpu())[0]
            mx.eval(rows)
            self._cache.evaluate()
            if self._cache.position == self._marked_at:
                self._cache.mark()
            hidden.append(rows)
        return hidden[0] if len(hidden) == 1 else mx.concatenate(hidden)

    def hold(self, slot: int, shared: Sequence[int]) -> None:
        """See `Sequences`."""
        self._held = shared[: self._cache.position]


def in_common(held: Sequence[int], shared: Sequence[int], stride: int) -> int:
    """Return the length of the prefix that a beginning can take over from one that is held.

    It is the whole beginning, or a multiple of `stride`: a part that is computed anew must have the same
    tokens as one that is taken over.
    """
    if held == shared:
        return len(shared)
    return common_parts_length(held, shared, stride, len(shared))
