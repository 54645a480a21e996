"""Attention over the cache: heads and their norms, and what one forward pass tells all layers.

Between layers a pass holds one row per token, (B * L, hidden); only attention knows which rows belong
together.

Axes: B batch, L new tokens, R rows (B * L), H heads, D head size, S tokens in the cache with the
new ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import mlx.core as mx

from metal_gen.models.layers import Linear
from metal_gen.models.matrices.matrix import computed
from metal_gen.models.rope import Rope


@dataclass(frozen=True)
class HeadNorm:
    """RMSNorm of every head by itself, with a weight (D,) for queries and one for keys.

    As `RMSNorm` for the rest.
    """

    query_weight: mx.array
    key_weight: mx.array
    num_heads: int
    num_kv_heads: int
    eps: float
    around_zero: bool = False

    @cached_property
    def _weight(self) -> mx.array:
        """(H, 1, D): each head's."""
        weights = [self.query_weight] * self.num_heads + [self.key_weight] * self.num_kv_heads
        return computed(mx.stack(weights)[:, None] + (1 if self.around_zero else 0))

    def __call__(self, heads: mx.array) -> mx.array:
        """Normalise (B, H, L, D): the query heads, then the key heads."""
        return mx.fast.rms_norm(heads, None, self.eps) * self._weight


class LayerCache(Protocol):
    """Where the layers of one pass put keys and values."""

    def update(self, layer: int, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write (B, H, L, D) of each and return what attention is to look at, (B, H, S, D) of each."""
        ...


@dataclass(frozen=True)
class Part:
    """New tokens of a pass that look at the same stretch of the cache.

    Args:
        mask: What a full layer may look at, as `mx.fast.scaled_dot_product_attention` takes it.
        sliding_mask: The same of a sliding layer.
        last_keys: How many of the last keys a sliding layer looks at; None where the mask says it.
        rows: Which rows of the pass these are; all by default.
        is_one_text: The rows are successive tokens of one sequence, rather than one token of each.
        sequences: Of the cache; all by default.
        length: Positions of the cache that are looked at; all that it gives by default.
    """

    mask: mx.array | str | None
    sliding_mask: mx.array | str | None = None
    last_keys: int | None = None
    rows: slice | None = None
    is_one_text: bool = False
    sequences: slice | None = None
    length: int | None = None

    def of_rows(self, heads: mx.array) -> mx.array:
        """Take these tokens out of (B, H, L, D), as sequences."""
        if self.rows is None:
            return heads
        taken = heads[self.rows]
        return taken.swapaxes(0, 2) if self.is_one_text else taken

    def of_cache(self, buffer: mx.array) -> mx.array:
        """Take what these tokens look at."""
        return buffer if self.sequences is None else buffer[self.sequences, :, : self.length]


@dataclass(frozen=True)
class Step:
    """What all layers of one forward pass share.

    Args:
        cache: Takes the new keys and values.
        batch: B.
        length: L.
        offset: Position of the first new token; an array, (B,), where each sequence has its own or
            the pass is being compiled.
        periods: Of the rotary embedding, (D / 2,).
        parts: All rows, in their order.
    """

    cache: LayerCache
    batch: int
    length: int
    offset: int | mx.array
    periods: mx.array
    parts: Sequence[Part]


@dataclass(frozen=True)
class Attention:
    """Causal grouped-query attention with rotary positions, over the cache.

    Queries and keys are normalised and rotated together, as heads of one array.

    Args:
        gated: The projection gives a gate beside each query, for what comes out of its head.
    """

    qkv: Linear
    output: Linear
    rope: Rope
    num_heads: int
    num_kv_heads: int
    head_dim: int
    sliding: bool
    head_norm: HeadNorm | None = None
    gated: bool = False

    def __call__(self, rows: mx.array, layer: int, step: Step) -> mx.array:
        """Map (R, hidden) to (R, hidden) and write this layer's part of the cache."""
        queries, keys, values, gates = self._project(rows, step)
        keys, values = step.cache.update(layer, keys, values)
        queries = queries.astype(keys.dtype)
        attended = [
            self._attend(part.of_rows(queries), part.of_cache(keys), part.of_cache(values), part)
            for part in step.parts
        ]
        joined = attended[0] if len(attended) == 1 else mx.concatenate(attended)
        joined = joined.astype(rows.dtype)
        return self.output(joined if gates is None else joined * mx.sigmoid(gates))

    def _attend(self, queries: mx.array, keys: mx.array, values: mx.array, part: Part) -> mx.array:
        """Let (B, H, L, D) look at (B, H_kv, S, D), and give rows, (B * L, H * D)."""
        if self.sliding and part.last_keys is not None:
            keys, values = keys[:, :, -part.last_keys :], values[:, :, -part.last_keys :]
        attended = mx.fast.scaled_dot_product_attention(
            queries,
            keys,
            values,
            scale=self.head_dim**-0.5 * self.rope.score_factor,
            mask=part.sliding_mask if self.sliding else part.mask,
        )
        batch, heads, length, size = queries.shape
        if length > 1:
            attended = attended.swapaxes(1, 2)
        return attended.reshape(batch * length, heads * size)

    def _project(self, rows: mx.array, step: Step) -> tuple[mx.array, mx.array, mx.array, mx.array | None]:
        """Queries (B, H, L, D), keys and values (B, H_kv, L, D), gates (R, H * D), from one product."""
        turned = self.num_heads + self.num_kv_heads
        projected, count = self.qkv(rows), turned + self.num_kv_heads
        gates: mx.array | None = None
        if self.gated:
            projected, gates = self._part_gates(projected)
        if step.length == 1:
            heads = projected.reshape(step.batch, count, 1, self.head_dim)
        else:
            heads = projected.reshape(step.batch, step.length, count, self.head_dim).swapaxes(1, 2)
        heads, values = mx.split(heads, [turned], axis=1)
        if self.head_norm is not None:
            heads = self.head_norm(heads)
        queries, keys = mx.split(self.rope(heads, step.offset, step.periods), [self.num_heads], axis=1)
        return queries, keys, values, gates

    def _part_gates(self, projected: mx.array) -> tuple[mx.array, mx.array]:
        """Take the gates out from between the queries of (R, ...)."""
        size = self.num_heads * self.head_dim
        pairs, others = mx.split(projected, [2 * size], axis=-1)
        pairs = pairs.reshape(len(projected), self.num_heads, 2, self.head_dim)
        queries, gates = pairs[:, :, 0].reshape(-1, size), pairs[:, :, 1].reshape(-1, size)
        return mx.concatenate([queries, others], axis=-1), gates
