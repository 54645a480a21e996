"""Checks attention as decode and prefill use it: a GPU's fused kernels, and their replacements.

MLX chooses a kernel by the head size, the number of new tokens and of tokens in the cache, the mask, and the
number of heads that share a key.

Axes: B sequences, H query heads, G key/value heads, L new tokens, S tokens in the cache, D head size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import mlx.core as mx

from metal_gen.cache.forms import PackedForm
from metal_gen.cache.packed_heads import BITS, GROUP_SIZE
from metal_gen.device.backend import on_cpu, runs_on_cpu
from metal_gen.device_checks.check import TOLERANCES, Check, Pair, dtype_name, random_numbers
from metal_gen.models.masks import seen_by
from metal_gen.models.packed_attention import packed_attention

CAPACITY_BEYOND = 17


@dataclass(frozen=True)
class _Case:
    head_dim: int
    heads: int
    kv_heads: int
    new: int
    seen: int
    batch: int = 1
    has_mask: bool = False
    dtype: mx.Dtype = mx.bfloat16
    is_packed: bool = False

    @property
    def name(self) -> str:
        parts = [
            f"attention of {self.new} tokens over {self.seen}",
            f"{self.heads}/{self.kv_heads} heads of {self.head_dim}",
            dtype_name(self.dtype),
        ]
        parts += ["cache in 8 bits"] if self.is_packed else []
        parts += ["with a mask"] if self.has_mask else []
        parts += [f"{self.batch} sequences"] if self.batch > 1 else []
        return ", ".join(parts)


def attention_checks() -> Iterator[Check]:
    """Yield checks of each kernel: one, few and many tokens, short and long caches, with and without mask."""
    # A CPU has no kernels for particular head sizes.
    for head_dim in (64,) if runs_on_cpu() else (64, 128, 256):
        for heads, kv_heads, seen in ((8, 8, 250), (8, 4, 250), (16, 2, 250)):
            yield _check(_Case(head_dim, heads, kv_heads, 1, seen))
            yield _check(_Case(head_dim, heads, kv_heads, 6, 300))
            yield _check(_Case(head_dim, heads, kv_heads, 100, 300))
        # Long caches are read in two passes; if eight heads share a key, by a separate kernel.
        for heads, kv_heads, seen in ((4, 4, 1500), (4, 2, 4500), (8, 1, 8300)):
            yield _check(_Case(head_dim, heads, kv_heads, 1, seen))
            yield _check(_Case(head_dim, heads, kv_heads, 1, seen, has_mask=True))
        yield _check(_Case(head_dim, 8, 2, 300, 300, dtype=mx.float32))
        yield _check(_Case(head_dim, 8, 2, 1, 1100, dtype=mx.float16))
        yield _check(_Case(head_dim, 8, 2, 1, 700, batch=3, has_mask=True))
        for heads, new, seen in ((8, 1, 700), (4, 5, 300), (4, 100, 300)):
            yield _check(_Case(head_dim, heads, 2, new, seen, is_packed=True))
        yield _check(_Case(head_dim, 8, 2, 1, 700, batch=3, has_mask=True, is_packed=True))
    # A head size without a fused kernel.
    yield _check(_Case(32, 4, 2, 1, 300))
    yield _check(_Case(32, 4, 2, 40, 300))


def _check(case: _Case) -> Check:
    return Check(case.name, TOLERANCES[case.dtype], partial(_pairs, case))


def _pairs(case: _Case) -> list[Pair]:
    queries = random_numbers(1, case.batch, case.heads, case.new, case.head_dim, dtype=case.dtype)
    buffer_shape = (case.batch, case.kv_heads, case.seen + CAPACITY_BEYOND, case.head_dim)
    whole = [random_numbers(seed, *buffer_shape, dtype=case.dtype) for seed in (2, 3)]
    scale = case.head_dim**-0.5
    mask = _mask(case)
    fused_mask: mx.array | str | None = mask if case.has_mask else "causal" if case.new > 1 else None
    # As in the cache: the beginning of a longer buffer.
    if case.is_packed:
        form = PackedForm(case.kv_heads, case.head_dim)
        held = form.decode([array[:, :, : case.seen] for array in form.encode(*whole)])
        computed = packed_attention(queries, *held, scale, fused_mask)
        mx.eval(computed, *(array for heads in held for array in heads.arrays))
    else:
        keys, values = (array[:, :, : case.seen] for array in whole)
        computed = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=fused_mask)
        mx.eval(computed)
    with on_cpu():
        if case.is_packed:
            keys, values = (mx.dequantize(*heads.arrays, group_size=GROUP_SIZE, bits=BITS) for heads in held)
        return [(computed, _plain(queries, keys, values, scale, mask))]


def _mask(case: _Case) -> mx.array:
    """Return what each query may attend to: (L, S), or (B, 1, 1, S) if sequences have their own lengths."""
    if case.has_mask:
        lengths = mx.array([case.seen - 1 - 11 * sequence for sequence in range(case.batch)])
        return seen_by(lengths, mx.arange(case.seen), None)[0]
    first = case.seen - case.new
    return mx.arange(case.seen)[None] <= mx.arange(first, case.seen)[:, None]


def _plain(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array) -> mx.array:
    queries, keys, values = (array.astype(mx.float32) for array in (queries, keys, values))
    shared_by = queries.shape[1] // keys.shape[1]
    keys, values = (mx.repeat(array, shared_by, axis=1) for array in (keys, values))
    scores = mx.where(mask, queries @ keys.swapaxes(-1, -2) * scale, -mx.inf)
    expected = mx.softmax(scores, axis=-1) @ values
    mx.eval(expected)
    return expected
