"""A cache whose sequences each have their own position: slots that are taken and freed one by one.

Keeps track of where each slot's next token goes, and of which prompts are still in the buffers. Knows
nothing of models.

Axes: B slots, H key/value heads, S capacity, D head size.
"""

from collections.abc import Iterable, Iterator, Sequence

import mlx.core as mx

from metal_gen.cache.common_prefix import common_parts_length
from metal_gen.cache.kv_cache import CacheOverflowError, KVCache
from metal_gen.cache.stored_text import write_while_reading
from metal_gen.device.extra_memory import wait_for_release


class SlotCache:
    """The slots of a cache, over its buffers (B, H, S, D).

    Args:
        cache: Cache with the buffers; its own position is not used.
        stride: Prompts are shared in multiples of this many tokens.

    Attributes:
        positions: Number of tokens in each slot.
    """

    def __init__(self, cache: KVCache, stride: int) -> None:
        self.cache = cache
        self.stride = stride
        self.positions = [0] * cache.config.batch_size
        self._prompts: list[list[int]] = [[] for _ in self.positions]

    @property
    def capacity(self) -> int:
        """Number of tokens that a slot holds."""
        return self.cache.config.max_seq_len

    @property
    def arrays(self) -> list[mx.array]:
        """All arrays that hold the contents of the slots, to be computed."""
        return self.cache.arrays

    def begin_pass(self) -> None:
        """Note that another pass is built; only what it adds can be taken back afterwards."""

    def end_pass(self) -> None:
        """Note that all of a pass has been built."""

    def part_end(self, slot: int, prompt: Sequence[int], others: Sequence[Sequence[int]]) -> int | None:
        """Return where the next part of a slot's prompt should end, for others to continue there.

        Args:
            slot: Slot of the prompt.
            prompt: Part of the prompt that may be shared.
            others: Waiting prompts.

        Returns:
            A number of tokens; None if any end will do.
        """

    def claim(self, slot: int, length: int) -> int:
        """Reserve the next positions of a slot and return the first of them.

        Raises:
            CacheOverflowError: Not all of them fit. The slot is unchanged.
        """
        start = self.positions[slot]
        if start + length > self.capacity:
            raise CacheOverflowError(start, length, self.capacity)
        self.positions[slot] += length
        return start

    def take_back(self, slot: int, count: int) -> None:
        """Take back the last positions of a slot; later tokens overwrite them."""
        self.positions[slot] -= count

    def reuse(self, slot: int, prompt: Sequence[int]) -> int:
        """Begin a prompt with the prefix that the slot already holds. Return its length."""
        self.positions[slot] = self._shared(slot, prompt)
        self._prompts[slot] = list(prompt[: self.positions[slot]])
        return self.positions[slot]

    def extend(self, slot: int, prompt: Sequence[int]) -> int:
        """Copy the next tokens of a prompt from a slot that holds more of it. Return how many."""
        shared = [self._shared(other, prompt) for other in range(len(self.positions))]
        length = max(shared)
        begin = self.positions[slot]
        if length <= begin:
            return 0
        self.copy(shared.index(length), slot, length)
        self.hold(slot, prompt)
        return length - begin

    def copy(self, source: int, slot: int, length: int) -> None:
        """Copy keys and values from another slot, from this slot's position up to a length."""
        begin = self.positions[slot]
        written: list[mx.array] = []
        for place, buffer in enumerate(self.cache.buffers):
            new = mx.contiguous(buffer[source, :, begin:length].swapaxes(0, 1)).swapaxes(0, 1)
            # Wait for the read before the write: MLX copies a whole buffer that is written while it is read.
            mx.eval(new, *written)
            wait_for_release()
            buffer[slot, :, begin:length] = new
            self.cache.buffers[place] = buffer
            written = [buffer]
        self.positions[slot] = length

    def stored(self, slot: int, length: int) -> Iterator[mx.array]:
        """Yield copies of the first positions of a slot as `KVCache.stored` does."""
        for place in range(len(self.cache.buffers)):
            yield mx.contiguous(self.cache.buffers[place][slot : slot + 1, :, :length])

    def restore(self, slot: int, prompt: Sequence[int], length: int, arrays: Iterable[mx.array]) -> None:
        """Begin a prompt in a slot from storage, as `KVCache.restore` does."""
        self.cache.settle()
        wait_for_release()
        self.positions[slot] = 0

        def write(buffer: mx.array, array: mx.array) -> None:
            buffer[slot : slot + 1, :, :length] = array[:, :, :length]

        write_while_reading(self.cache.buffers, arrays, write)
        self.positions[slot] = length
        self.hold(slot, prompt)

    def forget(self, slot: int) -> None:
        """Stop sharing the contents of this slot with other slots."""
        self._prompts[slot] = []

    def hold(self, slot: int, prompt: Sequence[int]) -> None:
        """Share what a slot holds of its prompt so far with other slots."""
        length = min(self.positions[slot], len(prompt)) // self.stride * self.stride
        self._prompts[slot] = list(prompt[:length])

    def reusable_length(self, first: Sequence[int], second: Sequence[int]) -> int:
        """Return how many tokens one prompt can reuse from another; at least one is left to compute."""
        return common_parts_length(first, second, self.stride, len(second) - 1)

    def _shared(self, slot: int, prompt: Sequence[int]) -> int:
        return self.reusable_length(self._prompts[slot], prompt)
