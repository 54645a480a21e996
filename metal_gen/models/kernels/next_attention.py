"""Attention of new tokens, one per sequence or all of one text, by a kernel; whether this device may use it.

Axes: as in `attend`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import mlx.core as mx

from metal_gen.device.backend import DTYPE_BYTES, dtype_named, on_cpu, runs_on_cpu
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels.attend import CODE, Counts, attend
from metal_gen.models.kernels.choice import Choice
from metal_gen.models.kernels.heads import Heads
from metal_gen.models.kernels.passed import has_passed, keep_passed, trial_key
from metal_gen.models.kernels.trial import reason_against
from metal_gen.models.masks import seen_by
from metal_gen.models.rope import Rope

# Largest difference, as a share of the largest number: a few roundings.
TOLERANCE = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}
TRIED_POSITIONS, TRIED_CAPACITY = (3, 270), 288
TRIED_TOGETHER = (268, 269, 270)
TRIED_EPS = 1e-6
LINEAR = "linear_attention"


@dataclass(frozen=True)
class NextTokens:
    """New tokens, one of each sequence of a cache or all of one, whose keys and values a kernel writes.

    Attributes:
        positions: Position of each token, (B,) int32.
        counts: Numbers of the cache.
        buffers: Buffers of the cache: keys and values of each layer in turn.
    """

    positions: mx.array
    counts: Counts
    buffers: Sequence[mx.array]

    @classmethod
    def of(
        cls,
        heads: Heads,
        positions: mx.array,
        length: int,
        capacity: int,
        buffers: Sequence[mx.array],
        *,
        is_one_text: bool = False,
    ) -> "NextTokens":
        """Return new tokens at these positions.

        Args:
            heads: Heads of the model.
            positions: Position of each token, (B,).
            length: Upper limit of the positions to attend to.
            capacity: Capacity of the cache.
            buffers: Buffers of the cache.
            is_one_text: The tokens are successive tokens of one text.
        """
        stretches = heads.stretches(length, positions.shape[0])
        counts = Counts.of(capacity, stretches, is_one_text=is_one_text)
        return cls(positions.astype(mx.int32), counts, buffers)

    def of_layer(self, layer: int) -> Sequence[mx.array]:
        """Return the keys and values of a layer."""
        return self.buffers[2 * layer : 2 * layer + 2]


@dataclass(frozen=True)
class NextAttention:
    """The attention of a layer, between its projections, for one new token of each sequence.

    Args:
        heads: The heads.
        weights: Norm weights of queries and keys, (D,) each; anything without a norm.
        factors: Constant of the norm, and factor of the scores, with log2(e), (2,) float32.
    """

    heads: Heads
    weights: tuple[mx.array, mx.array]
    factors: mx.array

    def __call__(self, rows: mx.array, periods: mx.array, nexts: NextTokens, layer: int) -> mx.array:
        """Map projections (B, X) to (B, H D), and write this layer's part of the cache."""
        return attend(
            self.heads,
            rows,
            self.weights,
            self.factors,
            periods,
            nexts.positions,
            nexts.counts,
            nexts.of_layer(layer),
        )


def score_factor(scale: float) -> float:
    """Return the factor of scores whose exponentials have base 2."""
    return scale * math.log2(math.e)


def heads_of(config: ModelConfig, *, normed: bool, sliding: bool = False) -> Heads:
    """Return the heads of a model's layers of full attention, or of its sliding ones."""
    return Heads(
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        rotated=config.rope.rotated_of(config.head_dim),
        gated=config.linear is not None,
        normed=normed,
        window=config.sliding_window if sliding else None,
    )


def choose(config: ModelConfig, normed: bool, dtype: str, cache_dtype: str) -> Choice:
    """Return how to compute the attention of new tokens on this device; the first call tries the kernel.

    Args:
        config: Sizes of the model.
        normed: Whether queries and keys are normalised.
        dtype: Dtype of computation.
        cache_dtype: Dtype of the cache.
    """
    found = _candidates(config, normed, cache_dtype)
    choices = [_chosen(heads, dtype, cache_dtype) for heads in found]
    return next((choice for choice in choices if not choice.by_kernel), Choice(by_kernel=bool(found)))


def _candidates(config: ModelConfig, normed: bool, cache_dtype: str) -> list[Heads]:
    """Return the heads of the kinds of layers; none if there is no kernel for one of them on this device."""
    rope = Rope(config.rope, config.head_dim)
    turns_evenly = rope.attention_factor == 1.0 or rope.rotated == config.head_dim
    if runs_on_cpu() or cache_dtype not in DTYPE_BYTES or not turns_evenly:
        return []
    kinds = sorted({kind == "sliding_attention" for kind in config.layer_types if kind != LINEAR})
    found = [heads_of(config, normed=normed, sliding=sliding) for sliding in kinds]
    return found if all(heads.are_supported for heads in found) else []


@cache
def _chosen(heads: Heads, dtype: str, cache_dtype: str) -> Choice:
    key = trial_key(CODE, heads, heads.rows, dtype, cache_dtype)
    if has_passed(key):
        return Choice(by_kernel=True)
    for trial in _trials(heads, dtype, cache_dtype):
        if reason := reason_against(trial.by_kernel, trial.on_cpu, TOLERANCE[dtype]):
            return Choice(by_kernel=False, refused=reason)
    keep_passed(key)
    return Choice(by_kernel=True)


def _trials(heads: Heads, dtype: str, cache_dtype: str) -> "list[_Trial]":
    return [
        _Trial(heads, dtype_named(dtype), dtype_named(cache_dtype), stretches, is_one_text=is_one_text)
        for is_one_text in (False, True)
        for stretches in (1, 4)
    ]


class _Trial:
    """Two sequences, one at its beginning and one in the middle, or tokens of one text.

    Arguments are those of `NextAttention`.
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
        numbers = [mx.random.normal(shape, key=mx.random.key(seed)) for seed, shape in enumerate(shapes)]
        self.rows, *weights = (each.astype(dtype) for each in numbers[:3])
        self.weights = (weights[0], weights[1])
        self.buffers = [each.astype(cache_dtype) for each in numbers[3:]]
        self.positions = mx.array(positions, mx.int32)
        self.periods = 10_000.0 ** (mx.arange(heads.rotated // 2) * (2 / heads.rotated))
        mx.eval(self.rows, self.weights, self.buffers, self.positions, self.periods)

    def by_kernel(self) -> list[mx.array]:
        """Return what is attended to, and the buffers afterwards."""
        factors = mx.array([TRIED_EPS, score_factor(self.heads.head_dim**-0.5)])
        counts = Counts.of(TRIED_CAPACITY, self.stretches, is_one_text=self.is_one_text)
        buffers = [mx.array(buffer) for buffer in self.buffers]
        mx.eval(buffers)
        nexts = NextTokens(self.positions, counts, buffers)
        attended = NextAttention(self.heads, self.weights, factors)(self.rows, self.periods, nexts, 0)
        mx.eval(attended)
        return [attended, *buffers]

    def on_cpu(self) -> list[mx.array]:
        """Return the same by MLX's operations on the CPU, in float32."""
        with on_cpu():
            expected = self._plainly()
            mx.eval(expected)
        return expected

    def _plainly(self) -> list[mx.array]:
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
