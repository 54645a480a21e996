"""A layer of linear attention: a short convolution over tokens, the gated delta rule, and a gated norm.

Source: `modeling_qwen3_next.py` and `modeling_qwen3_5.py` of Hugging Face transformers.

Axes: B sequences, L new tokens, R rows (B * L), H value heads, G key heads, C channels, T taps, K size of a
key, V of a value.
"""

from dataclasses import dataclass
from functools import cached_property

import mlx.core as mx

from metal_gen.models.attention import LayerStates, Part, Step
from metal_gen.models.config.linear_attention import LinearAttentionConfig
from metal_gen.models.layers import Linear, RMSNorm
from metal_gen.models.linear_attention.joined import convolved, gated, pace
from metal_gen.models.linear_attention.mix import Mix, joined_weights
from metal_gen.models.linear_attention.mixing import mixing_for
from metal_gen.models.linear_attention.projected import heads_of, parted
from metal_gen.models.linear_attention.replay import MixReplay, Replay
from metal_gen.models.linear_attention.rules import rule_for
from metal_gen.models.matrices.matrix import computed


@dataclass(frozen=True)
class GatedDeltaNet:
    """Linear attention, in place of attention. Its state has a constant size for any length of text.

    Args:
        sizes: Sizes of its heads.
        inputs: Projection to queries, keys, values, gates, beta and decay at once.
        by_key_head: Whether the projection groups its outputs by key head, rather than as all queries, then
            all keys, and so on.
        taps: Taps of the convolution, separate for each channel, (C, 1, T) or (C, T, 1).
        decay_log: Logarithm of how fast each head fades, (H,).
        decay_bias: Bias added to a token's decay, (H,).
        norm: Norm of each value head.
        output: Projection to (R, hidden).
        by_kernel: Whether a kernel may compute the delta rule, or all between the projections.
    """

    sizes: LinearAttentionConfig
    inputs: Linear
    by_key_head: bool
    taps: mx.array
    decay_log: mx.array
    decay_bias: mx.array
    norm: RMSNorm
    output: Linear
    by_kernel: bool = True

    @cached_property
    def _taps(self) -> mx.array:
        """Taps as (T, C)."""
        return computed(mx.contiguous(self.taps.reshape(len(self.taps), -1).T))

    @cached_property
    def _speed(self) -> mx.array:
        return computed(-mx.exp(self.decay_log.astype(mx.float32)))

    @cached_property
    def _mix(self) -> Mix:
        norm = self.norm.weight + int(self.norm.around_zero)
        weights = joined_weights(self._taps, self._speed, self.decay_bias, norm, self.norm.eps)
        return Mix(self.sizes, self.by_key_head, weights)

    def __call__(self, rows: mx.array, layer: int, step: Step) -> mx.array:
        """Map (R, hidden) to (R, hidden), and update this layer's states in the cache."""
        assert step.states is not None
        projected = self.inputs(rows)
        conv, _ = step.states.states(layer, step.parts[0].sequences)
        if mixing_for(self.sizes, projected.dtype, conv.dtype, by_kernel=self.by_kernel).by_kernel:
            parts = [self._mixed(part, layer, step.states, step, projected) for part in step.parts]
            return self.output(parts[0] if len(parts) == 1 else mx.concatenate(parts))
        mixed, gates, beta, decay = parted(projected, self.sizes, by_key_head=self.by_key_head)
        kept, taken = pace(decay, self.decay_bias, self._speed, beta)
        if step.active is not None:
            # A sequence without a token neither fades nor stores anything.
            kept, taken = kept * step.active[:, None], taken * step.active[:, None]
        outputs = [
            self._part(part, layer, step.states, step, mixed, kept, taken).reshape(-1, gates.shape[-1])
            for part in step.parts
        ]
        joined = outputs[0] if len(outputs) == 1 else mx.concatenate(outputs)
        heads = joined.reshape(-1, self.sizes.linear_value_head_dim).astype(rows.dtype)
        product = gated(self.norm(heads), gates.reshape(heads.shape))
        return self.output(product.astype(rows.dtype).reshape(rows.shape[0], -1))

    def _mixed(
        self, part: Part, layer: int, states: LayerStates, step: Step, projected: mx.array
    ) -> mx.array:
        """Compute all between the projections by a kernel, for the tokens of a part: (B * L, H * V)."""
        projected = part.of_texts(projected, step.batch, step.length)
        before, memory = states.states(layer, part.sequences)
        # A sequence without a token, of one, uses none.
        used = None if step.active is None else step.active.astype(mx.int32)
        heads, conv_after, memory_after = self._mix(projected, before, memory, used)
        replay = MixReplay(self._mix, (projected, before), memory)
        states.keep(layer, part.sequences, conv_after, memory_after, replay)
        return heads.reshape(-1, heads.shape[-1])

    def _part(
        self,
        part: Part,
        layer: int,
        states: LayerStates,
        step: Step,
        mixed: mx.array,
        kept: mx.array,
        taken: mx.array,
    ) -> mx.array:
        """Apply the delta rule to the tokens of a part and those before them. Return (B, L, H, V)."""
        mixed, kept, taken = (part.of_texts(each, step.batch, step.length) for each in (mixed, kept, taken))
        before, memory = states.states(layer, part.sequences)
        tokens = mx.concatenate([before, mixed], axis=1)
        after = mx.contiguous(tokens[:, mixed.shape[1] :])
        if step.active is not None:
            after = mx.where(step.active[:, None, None], after, before)
        queries, keys, values = heads_of(convolved(tokens, self._taps), self.sizes)
        rule = rule_for(self.sizes, by_kernel=self.by_kernel).compute
        outputs, memory_after = rule(queries, keys, values, kept, taken, memory)
        replay = Replay(rule, (tokens, keys, values, kept, taken), memory)
        states.keep(layer, part.sequences, after, memory_after, replay)
        return outputs
