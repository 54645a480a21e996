"""The layers that all dense Qwen models share.

Axes: B batch, L new tokens, H heads, D head size, S tokens in the cache with the new ones.
"""

from dataclasses import dataclass

import mlx.core as mx

from metal_gen.kv_cache import KVCache
from metal_gen.models.rope import Rope


@dataclass(frozen=True)
class Linear:
    """x W^T + b, with W as checkpoints store it: (out, in)."""

    weight: mx.array
    bias: mx.array | None = None

    def __call__(self, x: mx.array) -> mx.array:
        """Map (..., in) to (..., out)."""
        if self.bias is None:
            return x @ self.weight.T
        return mx.addmm(self.bias, x, self.weight.T)


@dataclass(frozen=True)
class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight, accumulated in float32 (arXiv 1910.07467)."""

    weight: mx.array
    eps: float

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise the last axis."""
        return mx.fast.rms_norm(x, self.weight, self.eps)


@dataclass(frozen=True)
class Step:
    """What all layers of one forward pass share.

    Args:
        cache: Where keys and values go; its positions are claimed already.
        periods: Of the rotary embedding, (D / 2,).
        window: Tokens that a sliding layer sees, itself included.
        window_mask: Boolean (L, S), true where a sliding layer may look; None where it sees
            all that is there.
    """

    cache: KVCache
    periods: mx.array
    window: int | None
    window_mask: mx.array | None


@dataclass(frozen=True)
class Attention:
    """Causal grouped-query attention with rotary positions, over the cache."""

    qkv: Linear
    output: Linear
    rope: Rope
    num_heads: int
    num_kv_heads: int
    head_dim: int
    sliding: bool
    query_norm: RMSNorm | None = None
    key_norm: RMSNorm | None = None

    def __call__(self, x: mx.array, layer: int, step: Step) -> mx.array:
        """Map (B, L, hidden) to (B, L, hidden) and write this layer's part of the cache."""
        queries, keys, values = self._project(x)
        queries = self.rope(queries, step.cache.start, step.periods)
        keys = self.rope(keys, step.cache.start, step.periods)
        keys, values = step.cache.update(layer, keys, values)

        length = x.shape[1]
        mask: mx.array | str | None = "causal" if length > 1 else None
        if self.sliding and step.window_mask is not None:
            mask = step.window_mask
        elif self.sliding and step.window is not None:
            keys, values = keys[:, :, -step.window :], values[:, :, -step.window :]

        scale = self.head_dim**-0.5 * self.rope.attention_factor**2
        attended = mx.fast.scaled_dot_product_attention(
            queries.astype(keys.dtype), keys, values, scale=scale, mask=mask
        )
        merged = attended.astype(x.dtype).swapaxes(1, 2).reshape(*x.shape[:2], -1)
        return self.output(merged)

    def _project(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Queries (B, H, L, D), keys and values (B, H_kv, L, D), from one product."""
        heads = self.qkv(x).reshape(*x.shape[:2], -1, self.head_dim)
        first_value = self.num_heads + self.num_kv_heads
        queries, keys, values = mx.split(heads, [self.num_heads, first_value], axis=2)
        if self.query_norm is not None and self.key_norm is not None:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        return queries.swapaxes(1, 2), keys.swapaxes(1, 2), values.swapaxes(1, 2)


@dataclass(frozen=True)
class GatedMLP:
    """down(silu(gate(x)) * up(x)), with gate and up in one product (SwiGLU, arXiv 2002.05202)."""

    gate_up: Linear
    down: Linear

    def __call__(self, x: mx.array) -> mx.array:
        """Map (B, L, hidden) to (B, L, hidden)."""
        gate, up = mx.split(self.gate_up(x), 2, axis=-1)
        return self.down(gate * mx.sigmoid(gate) * up)


@dataclass(frozen=True)
class DecoderLayer:
    """Attention and MLP, each normalised before and added to what came in."""

    attention_norm: RMSNorm
    attention: Attention
    mlp_norm: RMSNorm
    mlp: GatedMLP

    def __call__(self, x: mx.array, layer: int, step: Step) -> mx.array:
        """Map (B, L, hidden) to (B, L, hidden)."""
        x = x + self.attention(self.attention_norm(x), layer, step)
        return x + self.mlp(self.mlp_norm(x))


def sliding_window_mask(start: int, length: int, window: int) -> mx.array | None:
    """Which keys each new token sees in a sliding layer: itself and the `window` - 1 before.

    Args:
        start: Position of the first new token, and so the number of older keys.
        length: New tokens.
        window: Tokens seen, the querying one included.

    Returns:
        Boolean (L, S) with S = start + length; None where a mask is not needed, because the
        window covers everything or there is a single query.
    """
    if length == 1 or start + length <= window:
        return None
    queries = mx.arange(start, start + length)[:, None]
    keys = mx.arange(start + length)[None]
    return (keys <= queries) & (keys > queries - window)
