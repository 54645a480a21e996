"""The cache inside a compiled function: arrays that go in and come out, written at places that are arrays.

Axes: B sequences, H heads, S capacity, L new tokens.
"""

from collections.abc import Sequence

import mlx.core as mx

from metal_gen.cache.forms import CacheForm, Heads
from metal_gen.models.linear_attention.replay import AnyReplay


class FixedShapes:
    """Buffers (B, H, S, ...) and states inside a compiled function.

    Args:
        form: How a layer's buffers hold keys and values.
        arrays: Buffers, then states.
        num_buffers: Number of buffers among them.
        places: Where the new tokens go, (B, 1, L, 1).
        length: Number of positions that attention reads.

    Attributes:
        buffers: Buffers as the function has changed them.
        replays: How to compute the states of each layer of linear attention after fewer tokens.
    """

    def __init__(
        self, form: CacheForm, arrays: Sequence[mx.array], num_buffers: int, places: mx.array, length: int
    ) -> None:
        self._form = form
        self.buffers, self._states = list(arrays[:num_buffers]), list(arrays[num_buffers:])
        self.replays: list[AnyReplay] = []
        self._places = places
        self._length = length
        self._has_updated = False

    def update(self, layer: int, keys: mx.array, values: mx.array) -> tuple[Heads, Heads]:
        """Implement `LayerCache.update`."""
        self._has_updated = True
        seen = []
        for place, new in enumerate(self._form.encode(keys, values), layer * len(self._form.names)):
            # This writes in place on CUDA too, where `mx.slice_update` copies the buffer.
            self.buffers[place] = mx.put_along_axis(self.buffers[place], self._places, new, axis=2)
            seen.append(self.buffers[place][:, :, : self._length])
        return self._form.decode(seen)

    @property
    def replaced(self) -> list[mx.array]:
        """What the function has to give back, for `KVCache.take_replaced`.

        These are buffers and states, or states alone: a kernel writes to the buffers that it is given.
        """
        return [*self.buffers, *self._states] if self._has_updated else list(self._states)

    def states(self, layer: int, sequences: slice | None) -> tuple[mx.array, mx.array]:
        """Implement `LayerStates.states`."""
        return self._states[2 * layer], self._states[2 * layer + 1]

    def keep(
        self, layer: int, sequences: slice | None, conv: mx.array, memory: mx.array, replay: AnyReplay
    ) -> None:
        """Implement `LayerStates.keep`."""
        self._states[2 * layer : 2 * layer + 2] = [conv.astype(self._states[2 * layer].dtype), memory]
        self.replays.append(replay)
