"""Computes the states of a layer of linear attention again, after fewer tokens than a pass had.

The last tokens of a pass may have been guesses. What the states come from is kept: it is small beside them.

Axes: B sequences, L tokens of the pass, C channels, T taps of the convolution, G key heads, H value heads,
V size of a value, K size of a key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mlx.core as mx

from metal_gen.models.linear_attention.mix import Mix

Rule = Callable[[mx.array, mx.array, mx.array, mx.array, mx.array, mx.array], tuple[mx.array, mx.array]]


@dataclass(frozen=True)
class Replay:
    """A layer's states after the first tokens of a pass.

    Args:
        rule: Computes the gated delta rule, as `delta_rule` does.
        inputs: Inputs of the convolution, (B, T - 1 + L, C); keys, (B, L, G, K); values, (B, L, H, V);
            logarithm of what remains, and share that is stored, (B, L, H) each.
        memory: Memory before the pass, (B, H, V, K).
    """

    rule: Rule
    inputs: tuple[mx.array, ...]
    memory: mx.array

    @property
    def of_arrays(self) -> "ReplayOf":
        """Makes a replay of the same layer from other inputs and another memory."""
        return partial(Replay, self.rule)

    def __call__(self, count: int) -> tuple[mx.array, mx.array]:
        """Return the inputs of the convolution, (B, T - 1, C), and the memory after so many tokens."""
        tokens, *others = self.inputs
        keys, values, kept, taken = (mx.contiguous(each[:, :count]) for each in others)
        return mx.contiguous(tokens[:, count : count + self._inputs_kept]), self._after(
            keys, values, kept, taken
        )

    def masked(self, count: mx.array) -> tuple[mx.array, mx.array]:
        """Return the same for a count, (1,), that is not known yet.

        Tokens beyond it neither fade nor store anything.
        """
        tokens, keys, values, kept, taken = self.inputs
        is_first = (mx.arange(keys.shape[1]) < count)[:, None]
        places = count + mx.arange(self._inputs_kept)
        return mx.take(tokens, places, axis=1), self._after(keys, values, kept * is_first, taken * is_first)

    @property
    def _inputs_kept(self) -> int:
        """Number of inputs that the convolution keeps, T - 1."""
        return self.inputs[0].shape[1] - self.inputs[1].shape[1]

    def _after(self, keys: mx.array, values: mx.array, kept: mx.array, taken: mx.array) -> mx.array:
        # The memory does not depend on queries.
        return self.rule(keys, keys, values, kept, taken, self.memory)[1]


@dataclass(frozen=True)
class MixReplay:
    """The same where a kernel computes all between the projections. Methods are those of `Replay`.

    Args:
        rule: The kernel.
        inputs: Projection of the tokens, (B, L, X), and inputs of the convolution before them, (B, T - 1, C).
        memory: Memory before the pass, (B, H, V, K).
    """

    rule: Mix
    inputs: tuple[mx.array, ...]
    memory: mx.array

    @property
    def of_arrays(self) -> "ReplayOf":
        """Makes a replay of the same layer from other inputs and another memory."""
        return partial(MixReplay, self.rule)

    def __call__(self, count: int) -> tuple[mx.array, mx.array]:
        """Return the inputs of the convolution, (B, T - 1, C), and the memory after so many tokens."""
        rows, before = self.inputs
        _, conv, memory = self.rule(rows[:, :count], before, self.memory)
        return conv, memory

    def masked(self, count: mx.array) -> tuple[mx.array, mx.array]:
        """See `Replay.masked`."""
        rows, before = self.inputs
        _, conv, memory = self.rule(rows, before, self.memory, count)
        return conv, memory


AnyReplay = Replay | MixReplay
ReplayOf = Callable[[tuple[mx.array, ...], mx.array], AnyReplay]
