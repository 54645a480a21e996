"""The states of all layers of linear attention after the first tokens of a pass, as a compiled function."""

from collections.abc import Sequence

import mlx.core as mx

from metal_gen.models.linear_attention.replay import AnyReplay, ReplayOf

# What the states of a layer are computed from: inputs of a pass, and the memory before it.
ReplayArrays = tuple[tuple[mx.array, ...], mx.array]


class CompiledReplays:
    """Computes states again from what compiled passes of one model give.

    Args:
        conv_dtype: Dtype of the convolution's state.
    """

    def __init__(self, conv_dtype: mx.Dtype) -> None:
        self._conv_dtype = conv_dtype
        # Makes the replay of each layer from arrays: in all passes of a model, the same way is used.
        self._replay_of: list[ReplayOf] = []
        # Shapes of inputs for which the function has been traced, which happens when it is first needed.
        self._traced: set[tuple[int, ...]] = set()
        self._compiled = mx.compile(self._states)

    @property
    def count(self) -> int:
        """Number of functions compiled so far."""
        return len(self._traced)

    def note(self, replays: Sequence[AnyReplay]) -> list[ReplayArrays]:
        """Note the replays of a pass that is being compiled. Return what it has to give back for `states`."""
        self._replay_of = [replay.of_arrays for replay in replays]
        return [(replay.inputs, replay.memory) for replay in replays]

    def states(self, layers: Sequence[ReplayArrays], count: int) -> Sequence[mx.array]:
        """Return the states after the first `count` tokens of a pass, as `HybridCache.state_arrays`."""
        states: Sequence[mx.array] = self._compiled(mx.array([count]), layers)
        return states

    def _states(self, count: mx.array, layers: Sequence[ReplayArrays]) -> list[mx.array]:
        (inputs, _), *_ = layers
        self._traced.add(inputs[0].shape)
        after = []
        for replay_of, (inputs, memory) in zip(self._replay_of, layers, strict=True):
            conv, memory_after = replay_of(inputs, memory).masked(count)
            after += [conv.astype(self._conv_dtype), memory_after]
        return after
