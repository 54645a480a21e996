"""Chooses how to compute what is between the projections of a layer of linear attention on this device.

A kernel does all of it where it passes a trial beside plain operations. Elsewhere `rules` chooses for the
delta rule alone.

Axes: as in `mix_kernel`.
"""

from collections.abc import Sequence
from functools import cache, partial

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.models.config.linear_attention import LinearAttentionConfig
from metal_gen.models.kernels.choice import PLAIN, Choice
from metal_gen.models.kernels.passed import choice_by_trial, trial_key
from metal_gen.models.kernels.trial import Trial, random_arrays
from metal_gen.models.linear_attention.delta_rule import delta_rule
from metal_gen.models.linear_attention.joined import convolved, gated, pace
from metal_gen.models.linear_attention.mix import (
    PART_OF_HEAD,
    Group,
    Mix,
    is_supported,
    joined_weights,
    whole_head,
)
from metal_gen.models.linear_attention.mix_kernel import CODE
from metal_gen.models.linear_attention.projected import heads_of, parted
from metal_gen.models.linear_attention.rules import rule_for

# Largest difference, as a share of the largest number: of float32, or one rounding of the result.
TOLERANCE = {mx.float32: 1e-4, mx.float16: 2e-3, mx.bfloat16: 1e-2}
TRIED_EPSILON = 1e-6
# More than are prepared at once.
TRIED_TOKENS = 19


def mixing_for(
    sizes: LinearAttentionConfig, dtype: mx.Dtype, conv_dtype: mx.Dtype, *, by_kernel: bool = True
) -> Choice:
    """Return the way for heads of these sizes. The first call tries the kernel.

    Args:
        sizes: Sizes of the heads.
        dtype: Dtype of the rows.
        conv_dtype: Dtype of the convolution's state.
        by_kernel: Whether a kernel may be used.
    """
    if runs_on_cpu() or not by_kernel or not is_supported(sizes) or dtype not in TOLERANCE:
        return PLAIN
    return _chosen(sizes, dtype, conv_dtype)


def described(sizes: LinearAttentionConfig, dtype: mx.Dtype, conv_dtype: mx.Dtype, *, by_kernel: bool) -> str:
    """Return for users how it is computed; arguments are those of `mixing_for`."""
    mixing = mixing_for(sizes, dtype, conv_dtype, by_kernel=by_kernel)
    if mixing.by_kernel:
        return "a kernel of its own"
    rule = str(rule_for(sizes, by_kernel=by_kernel))
    return rule if mixing.refused is None else f"{rule}; not one kernel for all: {mixing.refused}"


@cache
def _chosen(sizes: LinearAttentionConfig, dtype: mx.Dtype, conv_dtype: mx.Dtype) -> Choice:
    groups = (whole_head(sizes.linear_value_head_dim), PART_OF_HEAD)
    key = trial_key(CODE, sizes, groups, dtype, conv_dtype)
    trials = [
        partial(MixTrial, sizes, dtype, conv_dtype, TRIED_TOKENS, group, by_key_head=by_key_head)
        for group, by_key_head in zip(groups, (False, True), strict=True)
    ]
    return choice_by_trial(key, trials, TOLERANCE[dtype])


class MixTrial(Trial):
    """Three sequences of a few tokens: one uses none, and its states stay; one uses all but the last.

    Args:
        sizes: Sizes of the heads.
        dtype: Dtype of the rows.
        conv_dtype: Dtype of the convolution's state.
        length: Number of tokens of each sequence.
        group: How to share the work.
        by_key_head: Whether the projection groups its outputs by key head.
    """

    def __init__(
        self,
        sizes: LinearAttentionConfig,
        dtype: mx.Dtype,
        conv_dtype: mx.Dtype,
        length: int,
        group: Group,
        *,
        by_key_head: bool,
    ) -> None:
        self.sizes, self.by_key_head, self.group = sizes, by_key_head, group
        heads, value, taps = (
            sizes.linear_num_value_heads,
            sizes.linear_value_head_dim,
            sizes.linear_conv_kernel_dim,
        )
        channels = sizes.conv_size
        numbers = random_arrays(
            [
                (3, length, channels + sizes.value_size + 2 * heads),
                (3, taps - 1, channels),
                (3, heads, value, sizes.linear_key_head_dim),
                (taps, channels),
                (heads,),
                (heads,),
                (value,),
            ]
        )
        self.rows, self.before = numbers[0].astype(dtype), numbers[1].astype(conv_dtype)
        self.memory, self.taps, speed, self.bias, self.norm = numbers[2:]
        self.speed = -mx.exp(speed)
        self.used = mx.array([length, 0, length - 1], mx.int32)
        mx.eval(self.rows, self.before, self.memory, self.taps, self.speed, self.bias, self.norm, self.used)

    def by_kernel(self) -> Sequence[mx.array]:
        """Return gated heads, the state of the convolution and the memory."""
        weights = joined_weights(self.taps, self.speed, self.bias, self.norm, TRIED_EPSILON)
        mix = Mix(self.sizes, self.by_key_head, weights, self.group)
        return mix(self.rows, self.before, self.memory, self.used)

    def plainly(self) -> Sequence[mx.array]:
        """See `Trial`."""
        sizes, batch, length = self.sizes, len(self.rows), self.rows.shape[1]
        rows = self.rows.astype(mx.float32).reshape(batch * length, -1)
        parts = parted(rows, sizes, by_key_head=self.by_key_head)
        mixed, gates, beta, decay = (part.reshape(batch, length, -1) for part in parts)
        kept, taken = pace(decay, self.bias, self.speed, beta)
        is_used = mx.arange(length)[:, None] < self.used[:, None, None]
        before = self.before.astype(mx.float32)
        tokens = mx.concatenate([before, mixed], axis=1)
        queries, keys, values = heads_of(convolved(tokens, self.taps), sizes)
        heads, memory = delta_rule(queries, keys, values, kept * is_used, taken * is_used, self.memory)
        heads = mx.fast.rms_norm(heads, self.norm, TRIED_EPSILON)
        product = gated(heads, gates.reshape(heads.shape)).reshape(batch, length, -1)
        last = self.used[:, None, None] + mx.arange(before.shape[1])[:, None]
        return [product, mx.take_along_axis(tokens, last, axis=1), memory]
