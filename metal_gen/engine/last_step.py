"""The last step of a decoder, which can be dropped."""

from copy import copy

import mlx.core as mx

from metal_gen.engine.decoder import Decoder


class LastStep:
    """Remembers the buffers as they were before the last step.

    Args:
        decoder: Decoder whose steps add one token each.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        # Handles that share memory with the cache.
        self._before: list[mx.array] = []

    def begin(self) -> None:
        """Note that a step will be built. A kernel replaces no buffer."""
        if not self._decoder.hands_over_early:
            self._before = [copy(buffer) for buffer in self._decoder.cache.buffers]

    def drop(self, *, is_running: bool) -> None:
        """Drop the step. Others may be built in its place.

        Args:
            is_running: Whether it may have been handed over, as a step whose kernel writes to the cache.
        """
        if not is_running:
            self._decoder.cache.forget_step()
        self._decoder.cache.take_back(1)
        if not self._decoder.hands_over_early:
            self._decoder.cache.buffers = [copy(buffer) for buffer in self._before]

    def keep(self) -> None:
        """Let go of the buffers before the step; MLX copies buffers that have a second handle."""
        self._before = []
