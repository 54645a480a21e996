"""The layers that all dense Qwen models share.

Between layers a pass holds one row per token, (B * L, hidden), so that every projection is a plain
product of matrices. Only attention knows which rows belong together.

Axes: B batch, L new tokens, R rows (B * L), H heads, D head size, S tokens in the cache with the
new ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Protocol

import mlx.core as mx

from metal_gen.backend import runs_on_cpu
from metal_gen.models.matvec import matvec, row_blocks
from metal_gen.models.rope import Rope


@dataclass(frozen=True)
class Linear:
    """x W^T + b, with W as checkpoints store it: (out, in)."""

    weight: mx.array
    bias: mx.array | None = None

    @cached_property
    def _matrix(self) -> mx.array:
        """(in, out): the same memory, turned once instead of at every use."""
        return _computed(self.weight.T)

    @cached_property
    def _blocks(self) -> mx.array | None:
        """The weight as `matvec` takes it; None where that is no faster."""
        blocks = row_blocks(self.weight)
        return None if blocks is None else _computed(blocks)

    def __call__(self, rows: mx.array) -> mx.array:
        """Map (R, in) to (R, out)."""
        if rows.shape[0] == 1 and self._blocks is not None:
            product = matvec(self._blocks, rows)
            return product if self.bias is None else product + self.bias
        if self.bias is None:
            return rows @ self._matrix
        return mx.addmm(self.bias, rows, self._matrix)


@dataclass(frozen=True)
class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight, accumulated in float32 (arXiv 1910.07467)."""

    weight: mx.array
    eps: float

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise the last axis."""
        return mx.fast.rms_norm(x, self.weight, self.eps)


@dataclass(frozen=True)
class HeadNorm:
    """RMSNorm of every head by itself, with a weight (D,) for queries and one for keys."""

    query_weight: mx.array
    key_weight: mx.array
    num_heads: int
    num_kv_heads: int
    eps: float

    @cached_property
    def _weight(self) -> mx.array:
        """(H, 1, D): each head's."""
        weights = [self.query_weight] * self.num_heads + [self.key_weight] * self.num_kv_heads
        return _computed(mx.stack(weights)[:, None])

    def __call__(self, heads: mx.array) -> mx.array:
        """Normalise (B, H, L, D): the query heads, then the key heads."""
        return mx.fast.rms_norm(heads, None, self.eps) * self._weight


class LayerCache(Protocol):
    """Where the layers of one pass put keys and values."""

    def update(self, layer: int, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write (B, H, L, D) of each and return what attention is to look at, (B, H, S, D) of each."""
        ...


@dataclass(frozen=True)
class Step:
    """What all layers of one forward pass share.

    Args:
        cache: Takes the new keys and values.
        batch: B.
        length: L.
        offset: Position of the first new token; an array, (1,), where the pass is being compiled.
        periods: Of the rotary embedding, (D / 2,).
        mask: What a full layer may look at, as `mx.fast.scaled_dot_product_attention` takes it.
        sliding_mask: The same of a sliding layer.
        last_keys: How many of the last keys a sliding layer looks at; None where the mask says it.
    """

    cache: LayerCache
    batch: int
    length: int
    offset: int | mx.array
    periods: mx.array
    mask: mx.array | str | None
    sliding_mask: mx.array | str | None = None
    last_keys: int | None = None


@dataclass(frozen=True)
class Attention:
    """Causal grouped-query attention with rotary positions, over the cache.

    Queries and keys are normalised and rotated together, as heads of one array.
    """

    qkv: Linear
    output: Linear
    rope: Rope
    num_heads: int
    num_kv_heads: int
    head_dim: int
    sliding: bool
    head_norm: HeadNorm | None = None

    def __call__(self, rows: mx.array, layer: int, step: Step) -> mx.array:
        """Map (R, hidden) to (R, hidden) and write this layer's part of the cache."""
        queries, keys, values = self._project(rows, step)
        keys, values = step.cache.update(layer, keys, values)
        mask = step.sliding_mask if self.sliding else step.mask
        if self.sliding and step.last_keys is not None:
            keys, values = keys[:, :, -step.last_keys :], values[:, :, -step.last_keys :]
        scale = self.head_dim**-0.5 * self.rope.attention_factor**2
        attended = mx.fast.scaled_dot_product_attention(
            queries.astype(keys.dtype), keys, values, scale=scale, mask=mask
        ).astype(rows.dtype)
        if step.length > 1:
            attended = attended.swapaxes(1, 2)
        return self.output(attended.reshape(rows.shape[0], -1))

    def _project(self, rows: mx.array, step: Step) -> tuple[mx.array, mx.array, mx.array]:
        """Queries (B, H, L, D), keys and values (B, H_kv, L, D), from one product."""
        turned = self.num_heads + self.num_kv_heads
        projected, count = self.qkv(rows), turned + self.num_kv_heads
        if step.length == 1:
            heads = projected.reshape(step.batch, count, 1, self.head_dim)
        else:
            heads = projected.reshape(step.batch, step.length, count, self.head_dim).swapaxes(1, 2)
        heads, values = mx.split(heads, [turned], axis=1)
        if self.head_norm is not None:
            heads = self.head_norm(heads)
        queries, keys = mx.split(self.rope(heads, step.offset, step.periods), [self.num_heads], axis=1)
        return queries, keys, values


@dataclass(frozen=True)
class GatedMLP:
    """down(silu(gate(x)) * up(x)), with gate and up in one product (SwiGLU, arXiv 2002.05202)."""

    gate_up: Linear
    down: Linear

    def __call__(self, rows: mx.array) -> mx.array:
        """Map (R, hidden) to (R, hidden)."""
        gate, up = mx.split(self.gate_up(rows), 2, axis=-1)
        product = _silu_product if runs_on_cpu() else _joined_silu_product()
        return self.down(product(gate, up))


@dataclass(frozen=True)
class DecoderLayer:
    """Attention and MLP, each normalised before and added to what came in."""

    attention_norm: RMSNorm
    attention: Attention
    mlp_norm: RMSNorm
    mlp: GatedMLP

    def __call__(self, rows: mx.array, layer: int, step: Step) -> mx.array:
        """Map (R, hidden) to (R, hidden)."""
        rows = rows + self.attention(self.attention_norm(rows), layer, step)
        return rows + self.mlp(self.mlp_norm(rows))


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


def _silu_product(gate: mx.array, up: mx.array) -> mx.array:
    return gate * mx.sigmoid(gate) * up


@cache
def _joined_silu_product() -> Callable[[mx.array, mx.array], mx.array]:
    """The same as one operation, for a GPU; for a CPU, MLX would call a C++ compiler."""
    return mx.compile(_silu_product, shapeless=True)


def _computed(view: mx.array) -> mx.array:
    mx.eval(view)
    return view
