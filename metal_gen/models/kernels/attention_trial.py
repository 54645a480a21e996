"""Whether this device may use the kernel for the attention of new tokens.

Axes: as in `attend`.
"""

from collections.abc import Sequence
from functools import cache, partial

import mlx.core as mx

from metal_gen.device.backend import DTYPE_BYTES, dtype_named, runs_on_cpu
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels.attend import AT_ONCE, Job
from metal_gen.models.kernels.attend_source import CODE
from metal_gen.models.kernels.choice import BY_KERNEL, PLAIN, Choice
from metal_gen.models.kernels.heads import Heads
from metal_gen.models.kernels.next_attention import NextAttention, NextTokens, heads_of, score_factor
from metal_gen.models.kernels.passed import choice_by_trial, trial_key
from metal_gen.models.kernels.trial import Trial, random_arrays
from metal_gen.models.masks import seen_by
from metal_gen.models.rope import Rope

# Largest difference, as a share of the largest number: a few roundings.
TOLERANCE = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}
TRIED_POSITIONS, TRIED_CAPACITY = (3, 270), 288
TRIED_TOGETHER = (268, 269, 270)
TRIED_EPS = 1e-6
LINEAR = "linear_attention"


def choose_attention(config: ModelConfig, dtype: str, cache_dtype: str, *, has_head_norms: bool) -> Choice:
    """Return how to compute the attention of new tokens on this device; the first call tries the kernel.

    Arguments are those of `choose_kernels`.
    """
    found = _candidates(config, cache_dtype, has_head_norms=has_head_norms)
    choices = [_chosen(heads, dtype, cache_dtype) for heads in found]
    usual = BY_KERNEL if found else PLAIN
    return next((choice for choice in choices if not choice.by_kernel), usual)


def _candidates(config: ModelConfig, cache_dtype: str, *, has_head_norms: bool) -> list[Heads]:
    """Return the heads of the kinds of layers; none if there is no kernel for one of them on this device."""
    rope = Rope(config.rope, config.head_dim)
    turns_evenly = rope.attention_factor == 1.0 or rope.rotated == config.head_dim
    if runs_on_cpu() or cache_dtype not in DTYPE_BYTES or not turns_evenly:
        return []
    kinds = sorted({kind == "sliding_attention" for kind in config.layer_types if kind != LINEAR})
    found = [heads_of(config, normed=has_head_norms, sliding=sliding) for sliding in kinds]
    return found if all(heads.are_supported for heads in found) else []


@cache
def _chosen(heads: Heads, dtype: str, cache_dtype: str) -> Choice:
    key = trial_key(CODE, heads, heads.rows, AT_ONCE, dtype, cache_dtype)
    dtypes = dtype_named(dtype), dtype_named(cache_dtype)
    trials = [
        partial(AttentionTrial, heads, *dtypes, stretches, is_one_text=is_one_text)
        for is_one_text in (False, True)
        for stretches in (1, 4)
    ]
    return choice_by_trial(key, trials, TOLERANCE[dtype])


class AttentionTrial(Trial):
    """Two sequences, one at its beginning and one in the middle, or tokens of one text.

    Args:
        heads: The heads.
        dtype: Dtype of the rows.
        cache_dtype: Dtype of keys and values.
        stretches: Number of stretches of the cache that groups of threads share.
        is_one_text: Whether the tokens are successive tokens of one text.
    """

    def __init__(
        self,
        heads: Heads,
        dtype: mx.Dtype,
        cache_dtype: mx.Dtype,
        stretches: int,
        *,
        is_one_text: bool = False,
    ) -> None:
        self.heads, self.stretches, self.is_one_text = heads, stretches, is_one_text
        positions = TRIED_TOGETHER if is_one_text else TRIED_POSITIONS
        batch, size = len(positions), heads.head_dim
        count = (2 if heads.gated else 1) * heads.num_heads + 2 * heads.num_kv_heads
        cache = (1 if is_one_text else batch, heads.num_kv_heads, TRIED_CAPACITY, size)
        shapes = [(batch, count * size), (size,), (size,), cache, cache]
        numbers = random_arrays(shapes)
        self.rows, *weights = (each.astype(dtype) for each in numbers[:3])
        self.weights = (weights[0], weights[1])
        self.buffers = [each.astype(cache_dtype) for each in numbers[3:]]
        self.positions = mx.array(positions, mx.int32)
        self.periods = 10_000.0 ** (mx.arange(heads.rotated // 2) * (2 / heads.rotated))
        mx.eval(self.rows, self.weights, self.buffers, self.positions, self.periods)

    def by_kernel(self) -> Sequence[mx.array]:
        """Return what is attended to, and the buffers afterwards."""
        factors = mx.array([TRIED_EPS, score_factor(self.heads.head_dim**-0.5)])
        job = Job.of(self.stretches, is_one_text=self.is_one_text)
        buffers = [mx.array(buffer) for buffer in self.buffers]
        mx.eval(buffers)
        nexts = NextTokens(self.positions, job, buffers)
        attended = NextAttention(self.heads, self.weights, factors)(self.rows, self.periods, nexts, 0)
        mx.eval(attended)
        return [attended, *buffers]

    def plainly(self) -> Sequence[mx.array]:
        """See `Trial`."""
        heads = self.heads
        turned = heads.num_heads + heads.num_kv_heads
        rows = self.rows.astype(mx.float32).reshape(len(self.rows), -1, 1, heads.head_dim)
        if heads.gated:
            gated, others = mx.split(rows, [2 * heads.num_heads], axis=1)
            rows = mx.concatenate([gated[:, ::2], others], axis=1)
        rows, values = mx.split(rows, [turned], axis=1)
        if heads.normed:
            query, key = (weight.astype(mx.float32) for weight in self.weights)
            weights = mx.stack([query] * heads.num_heads + [key] * heads.num_kv_heads)
            rows = mx.fast.rms_norm(rows, None, TRIED_EPS) * weights[:, None]
        rows = mx.fast.rope(
            rows,
            heads.rotated,
            traditional=False,
            base=None,
            scale=1.0,
            offset=self.positions,
            freqs=self.periods,
        )
        queries, keys = mx.split(rows, [heads.num_heads], axis=1)
        places = self.positions[:, None, None, None]
        if self.is_one_text:
            keys, values, places = keys.swapaxes(0, 2), values.swapaxes(0, 2), places.swapaxes(0, 2)
        buffers = [
            mx.put_along_axis(buffer.astype(mx.float32), places, new, axis=2)
            for buffer, new in zip(self.buffers, (keys, values), strict=True)
        ]
        full, sliding = seen_by(self.positions, mx.arange(TRIED_CAPACITY), heads.window, heads.num_heads)
        attended = mx.fast.scaled_dot_product_attention(
            queries,
            *(mx.broadcast_to(buffer, (len(self.positions), *buffer.shape[1:])) for buffer in buffers),
            scale=heads.head_dim**-0.5,
            mask=full if sliding is None else sliding,
        )
        return [attended.reshape(len(self.rows), -1), *buffers]
