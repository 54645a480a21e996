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
from metal_gen.models.linear_attention.replay import Replay
from metal_gen.models.linear_attention.rules import rule_for
from metal_gen.models.matrices.matrix import computed

EPSILON = 1e-6


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
        by_kernel: Whether a kernel may compute the delta rule.
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

    def __call__(self, rows: mx.array, layer: int, step: Step) -> mx.array:
        """Map (R, hidden) to (R, hidden), and update this layer's states in the cache."""
        assert step.states is not None
        mixed, gates, beta, decay = self._project(rows)
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
        queries, keys, values = self._heads(convolved(tokens, self._taps))
        rule = rule_for(self.sizes, by_kernel=self.by_kernel).compute
        outputs, memory_after = rule(queries, keys, values, kept, taken, memory)
        replay = Replay(rule, (tokens, keys, values, kept, taken), memory)
        states.keep(layer, part.sequences, after, memory_after, replay)
        return outputs

    def _project(self, rows: mx.array) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """Return queries, keys and values (R, C), gates (R, H * V), and beta and decay (R, H)."""
        sizes = self.sizes
        projected = self.inputs(rows)
        conv, value, heads = sizes.conv_size, sizes.value_size, sizes.linear_num_value_heads
        if not self.by_key_head:
            mixed, gates, beta, decay = mx.split(
                projected, [conv, conv + value, conv + value + heads], axis=-1
            )
            return mixed, gates, beta, decay
        count, key = sizes.linear_num_key_heads, sizes.linear_key_head_dim
        most, few = mx.split(projected, [conv + value], axis=-1)
        shared = value // count
        queries, keys, values, gates = mx.split(
            most.reshape(len(rows), count, -1), [key, 2 * key, 2 * key + shared], axis=-1
        )
        beta, decay = mx.split(few.reshape(len(rows), count, -1), 2, axis=-1)
        flat = [part.reshape(len(rows), -1) for part in (queries, keys, values, gates, beta, decay)]
        return mx.concatenate(flat[:3], axis=-1), flat[3], flat[4], flat[5]

    def _heads(self, mixed: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Return queries, scaled, and keys of length 1, (B, L, G, K), and values, (B, L, H, V)."""
        sizes = self.sizes
        queries, keys, values = mx.split(mixed, [sizes.key_size, 2 * sizes.key_size], axis=-1)
        key = sizes.linear_key_head_dim
        queries, keys = (heads.reshape(*heads.shape[:2], -1, key) for heads in (queries, keys))
        # An RMS norm divides by the root of a mean, not of a sum.
        queries, keys = (mx.fast.rms_norm(heads, None, EPSILON / key) for heads in (queries, keys))
        values = values.reshape(*values.shape[:2], -1, sizes.linear_value_head_dim)
        return queries * (1 / key), keys * key**-0.5, values
