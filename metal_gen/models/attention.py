"""Attention over the KV cache: heads, their norms, and the state that all layers of a pass share.

Between layers, a pass holds one row per token, (B * L, hidden). Only attention knows which rows belong
to which sequence.

Axes: B batch, L new tokens, R rows (B * L), H heads, D head size, S tokens in the cache including the
new ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import mlx.core as mx

from metal_gen.cache.forms import Heads
from metal_gen.cache.packed_heads import PackedHeads
from metal_gen.models.kernels.next_attention import NextAttention, NextTokens
from metal_gen.models.layers import Linear
from metal_gen.models.linear_attention.replay import AnyReplay
from metal_gen.models.masks import sliding_window_mask
from metal_gen.models.matrices.matrix import computed
from metal_gen.models.packed_attention import packed_attention
from metal_gen.models.rope import Rope


@dataclass(frozen=True)
class HeadNorm:
    """RMSNorm of each head, with a weight (D,) for queries and one for keys.

    The other fields are those of `RMSNorm`.
    """

    query_weight: mx.array
    key_weight: mx.array
    num_heads: int
    num_kv_heads: int
    eps: float
    around_zero: bool = False

    @cached_property
    def _weight(self) -> mx.array:
        """Weight of each head, (H, 1, D)."""
        weights = [self.query_weight] * self.num_heads + [self.key_weight] * self.num_kv_heads
        return computed(mx.stack(weights)[:, None] + (1 if self.around_zero else 0))

    def __call__(self, heads: mx.array) -> mx.array:
        """Normalize (B, H, L, D): query heads first, then key heads."""
        return mx.fast.rms_norm(heads, None, self.eps) * self._weight


class LayerCache(Protocol):
    """Stores the keys and values of the layers of one pass."""

    def update(self, layer: int, keys: mx.array, values: mx.array) -> tuple[Heads, Heads]:
        """Write new keys and values, (B, H, L, D) each; return those to attend to, (B, H, S, D) each."""
        ...


class LayerStates(Protocol):
    """Where layers of linear attention keep the states of each text.

    Axes: T taps of the convolution, C channels, H value heads, V size of a value, K of a key.
    """

    def states(self, layer: int, sequences: slice | None) -> tuple[mx.array, mx.array]:
        """Return the last inputs of a layer's convolution (B, T - 1, C), and its memory (B, H, V, K)."""
        ...

    def keep(
        self, layer: int, sequences: slice | None, conv: mx.array, memory: mx.array, replay: AnyReplay
    ) -> None:
        """Store the states after the new tokens of a part; `replay` gives those after its first ones."""
        ...


@dataclass(frozen=True)
class Part:
    """New tokens of a pass that attend to the same stretch of the cache.

    Args:
        mask: Mask of full layers, in the form that `mx.fast.scaled_dot_product_attention` takes.
        sliding_mask: Mask of sliding layers, in the same form.
        last_keys: Number of most recent keys that a sliding layer attends to; None if the mask decides.
        rows: Rows of the pass that hold these tokens; default: all.
        is_one_text: The rows are successive tokens of one sequence, rather than one token of each sequence.
        sequences: Sequences of the cache to attend to; default: all.
        length: Number of cache positions to attend to; default: all that the cache returns.
    """

    mask: mx.array | str | None
    sliding_mask: mx.array | str | None = None
    last_keys: int | None = None
    rows: slice | None = None
    is_one_text: bool = False
    sequences: slice | None = None
    length: int | None = None

    @classmethod
    def causal(cls, start: int, length: int, window: int | None) -> "Part":
        """Return successive tokens, each of which sees itself and what comes before.

        Args:
            start: Position of the first one.
            length: Number of tokens.
            window: Window of sliding layers; None without any.
        """
        mask = "causal" if length > 1 else None
        in_window = sliding_window_mask(start, length, window) if window else None
        if in_window is None:
            return cls(mask, sliding_mask=mask, last_keys=window)
        return cls(mask, sliding_mask=in_window)

    def of_rows(self, heads: mx.array) -> mx.array:
        """Select these tokens from (B, H, L, D), arranged as sequences."""
        if self.rows is None:
            return heads
        taken = heads[self.rows]
        return taken.swapaxes(0, 2) if self.is_one_text else taken

    def of_texts(self, rows: mx.array, batch: int, length: int) -> mx.array:
        """Select this part's rows from (R, ...), arranged as sequences: (B, L, ...)."""
        if self.rows is None:
            return rows.reshape(batch, length, *rows.shape[1:])
        taken = rows[self.rows]
        return taken[None] if self.is_one_text else taken[:, None]

    def of_cache(self, heads: Heads) -> Heads:
        """Select the keys or values that these tokens attend to."""
        return heads if self.sequences is None else heads[self.sequences, :, : self.length]


@dataclass(frozen=True)
class Step:
    """State that all layers of one forward pass share.

    Args:
        cache: Stores the new keys and values.
        batch: B.
        length: L.
        offset: Position of the first new token; an array, (B,), if each sequence has its own or the pass
            is being compiled.
        periods: Periods of the rotary embedding, as `Rope.periods` returns them.
        parts: Parts that together cover all rows, in order.
        states: Store of the states of linear attention; None if the model has no such layers.
        active: Which sequences have a new token, (B,); None if all have one.
        nexts: The same tokens for a kernel, which needs no `cache` and no `parts`; None for plain operations.
        in_stages: Compute each stage of a layer before the next is built: projections, each part, the output
            of attention, the MLP. On a CPU, MLX allocates the results of about a hundred operations ahead;
            then only those of one stage are in memory.
        in_layers: Compute each layer before the next is built.
    """

    cache: LayerCache
    batch: int
    length: int
    offset: int | mx.array
    periods: mx.array
    parts: Sequence[Part]
    states: LayerStates | None = None
    active: mx.array | None = None
    nexts: NextTokens | None = None
    in_stages: bool = False
    in_layers: bool = False

    def end_stage(self, *results: mx.array) -> None:
        """Compute the results of a stage, if stages are computed one by one."""
        if self.in_stages:
            mx.eval(*results)

    def end_layer(self, *results: mx.array) -> None:
        """Compute the results of a layer, if layers are computed one by one."""
        if self.in_layers:
            mx.eval(*results)


@dataclass(frozen=True)
class Attention:
    """Causal grouped-query attention with rotary positions, over the KV cache.

    Queries and keys are normalized and rotated together, as heads of one array.

    Args:
        gated: The projection returns a gate next to each query; the gate scales the output of its head.
        kernel: Computes attention where each sequence has one new token; None for plain operations.
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
    kernel: NextAttention | None = None

    def __call__(self, rows: mx.array, layer: int, step: Step) -> mx.array:
        """Map (R, hidden) to (R, hidden) and write this layer's part of the cache."""
        if self.kernel is not None and step.nexts is not None:
            projected = self.qkv(rows)
            by_kernel = self.kernel(projected, step.periods, step.nexts, layer)
            if self.gated:
                pairs, _ = self._pairs(projected)
                by_kernel = by_kernel * mx.sigmoid(pairs[:, :, 1].reshape(by_kernel.shape))
            return self.output(by_kernel)
        queries, keys, values, gates = self._project(rows, step)
        step.end_stage(queries, keys, values)
        held_keys, held_values = step.cache.update(layer, keys, values)
        # From the last: the parts of one text then share what the longest of them has unpacked.
        attended = []
        for part in reversed(step.parts):
            seen_keys, seen_values = part.of_cache(held_keys), part.of_cache(held_values)
            attended.append(self._attend(part.of_rows(queries), seen_keys, seen_values, part))
            step.end_stage(attended[-1])
        joined = attended[0] if len(attended) == 1 else mx.concatenate(attended[::-1])
        joined = joined.astype(rows.dtype)
        return self.output(joined if gates is None else joined * mx.sigmoid(gates))

    def _attend(self, queries: mx.array, keys: Heads, values: Heads, part: Part) -> mx.array:
        """Attend from (B, H, L, D) to (B, H_kv, S, D) and return rows, (B * L, H * D)."""
        if self.sliding and part.last_keys is not None:
            keys, values = keys[:, :, -part.last_keys :], values[:, :, -part.last_keys :]
        mask = part.sliding_mask if self.sliding else part.mask
        scale = self.head_dim**-0.5 * self.rope.score_factor
        if isinstance(keys, mx.array) and isinstance(values, mx.array):
            queries = queries.astype(keys.dtype)
            attended = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
        else:
            assert isinstance(keys, PackedHeads)
            assert isinstance(values, PackedHeads)
            attended = packed_attention(queries, keys, values, scale, mask)
        batch, heads, length, size = queries.shape
        if length > 1:
            attended = attended.swapaxes(1, 2)
        return attended.reshape(batch * length, heads * size)

    def _project(self, rows: mx.array, step: Step) -> tuple[mx.array, mx.array, mx.array, mx.array | None]:
        """Return queries (B, H, L, D), keys and values (B, H_kv, L, D), and gates (R, H * D)."""
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
        """Split (R, ...), where each head's gate follows its queries, into projections and gates."""
        pairs, others = self._pairs(projected)
        queries, gates = (pairs[:, :, place].reshape(len(projected), -1) for place in (0, 1))
        return mx.concatenate([queries, others], axis=-1), gates

    def _pairs(self, projected: mx.array) -> tuple[mx.array, mx.array]:
        """Split (R, ...) into each head's queries and gate, (R, H, 2, D), and the other projections."""
        pairs, others = mx.split(projected, [2 * self.num_heads * self.head_dim], axis=-1)
        return pairs.reshape(len(projected), self.num_heads, 2, self.head_dim), others
