"""A layer of linear attention: a short convolution over tokens, the gated delta rule, a gated norm.

Source: `modeling_qwen3_next.py` and `modeling_qwen3_5.py` of Hugging Face transformers.

Axes: B sequences, L new tokens, R rows (B * L), H value heads, G key heads, C channels, T taps.
"""

from dataclasses import dataclass
from functools import cached_property

import mlx.core as mx

from metal_gen.cache.hybrid import HybridCache
from metal_gen.models.attention import Step
from metal_gen.models.config.linear_attention import LinearAttentionConfig
from metal_gen.models.layers import Linear, RMSNorm
from metal_gen.models.linear_attention.delta_rule import delta_rule
from metal_gen.models.matrices.matrix import computed

EPSILON = 1e-6


@dataclass(frozen=True)
class GatedDeltaNet:
    """Takes the place of attention; what it knows of the text so far has a constant size.

    Args:
        sizes: Of its heads.
        inputs: Queries, keys, values, gates, beta and decay, in one product.
        by_key_head: The product has all that belongs to a key head side by side, rather than all queries,
            then all keys, and so on.
        taps: (C, 1, T) or (C, T, 1) of the convolution, each channel's by itself.
        decay_log: (H,) logarithm of how fast each head fades.
        decay_bias: (H,) added to what a token says of that.
        norm: Of each value head.
        output: To (R, hidden).
    """

    sizes: LinearAttentionConfig
    inputs: Linear
    by_key_head: bool
    taps: mx.array
    decay_log: mx.array
    decay_bias: mx.array
    norm: RMSNorm
    output: Linear

    @cached_property
    def _taps(self) -> mx.array:
        """(T, C)."""
        return computed(mx.contiguous(self.taps.reshape(len(self.taps), -1).T))

    @cached_property
    def _speed(self) -> mx.array:
        return computed(-mx.exp(self.decay_log.astype(mx.float32)))

    def __call__(self, rows: mx.array, layer: int, step: Step) -> mx.array:
        """Map (R, hidden) to (R, hidden), from and to this layer's states in the cache."""
        assert isinstance(step.cache, HybridCache)
        sizes = self.sizes
        mixed, gates, beta, decay = self._project(rows)
        mixed = mixed.reshape(step.batch, step.length, sizes.conv_size)
        before, memory = step.cache.states(layer)
        tokens = mx.concatenate([before, mixed], axis=1)
        after = mx.contiguous(tokens[:, step.length :])
        queries, keys, values = self._heads(self._convolved(tokens, step.length))

        def by_head(numbers: mx.array) -> mx.array:
            return numbers.astype(mx.float32).reshape(step.batch, step.length, -1).swapaxes(1, 2)

        fading = self._speed * mx.logaddexp(decay.astype(mx.float32) + self.decay_bias, mx.array(0.0))
        outputs, memory = delta_rule(
            queries, keys, values, by_head(fading), by_head(mx.sigmoid(beta)), memory
        )
        step.cache.keep(layer, after, memory)
        heads = outputs.swapaxes(1, 2).reshape(-1, sizes.linear_value_head_dim).astype(rows.dtype)
        gates = gates.reshape(heads.shape).astype(mx.float32)
        gated = self.norm(heads) * (gates * mx.sigmoid(gates))
        return self.output(gated.astype(rows.dtype).reshape(rows.shape[0], sizes.value_size))

    def _project(self, rows: mx.array) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """Queries, keys and values (R, C), gates (R, H * V), beta and decay (R, H)."""
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

    def _convolved(self, tokens: mx.array, length: int) -> mx.array:
        """Each channel's weighted sum of the last few tokens, (B, L, C)."""
        total = tokens[:, :length] * self._taps[0]
        for tap in range(1, len(self._taps)):
            total = total + tokens[:, tap : tap + length] * self._taps[tap]
        return total * mx.sigmoid(total)

    def _heads(self, mixed: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Queries and keys of length 1, one for each value head, and values: (B, H, L, size), float32."""
        sizes = self.sizes
        batch, length, _ = mixed.shape
        parts = mx.split(mixed.astype(mx.float32), [sizes.key_size, 2 * sizes.key_size], axis=-1)
        queries, keys, values = (
            part.reshape(batch, length, -1, size).swapaxes(1, 2)
            for part, size in zip(
                parts,
                (sizes.linear_key_head_dim, sizes.linear_key_head_dim, sizes.linear_value_head_dim),
                strict=True,
            )
        )
        shared = sizes.linear_num_value_heads // sizes.linear_num_key_heads
        queries = _of_length_one(queries) * sizes.linear_key_head_dim**-0.5
        return mx.repeat(queries, shared, axis=1), mx.repeat(_of_length_one(keys), shared, axis=1), values


def _of_length_one(heads: mx.array) -> mx.array:
    return heads * mx.rsqrt((heads * heads).sum(axis=-1, keepdims=True) + EPSILON)
