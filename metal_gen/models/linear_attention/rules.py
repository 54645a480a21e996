"""Chooses how to compute the gated delta rule on this device: the fastest way with correct results.

Before a kernel is used, it is tried once with a model's sizes and compared with plain operations on the CPU.
A kernel that does not compile or gives other results is not used.

Axes: as in `delta_rule`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.models.config.linear_attention import LinearAttentionConfig
from metal_gen.models.kernels.trial import Trial, random_arrays, reason_against
from metal_gen.models.linear_attention.delta_rule import delta_rule
from metal_gen.models.linear_attention.kernel import can_take, kernel_rule

Rule = Callable[[mx.array, mx.array, mx.array, mx.array, mx.array, mx.array], tuple[mx.array, mx.array]]
TRIED_TOKENS = 3
TOLERANCE = 1e-3


@dataclass(frozen=True)
class ChosenRule:
    """A way to compute the rule.

    Attributes:
        compute: Function with the arguments and results of `delta_rule`.
        name: Name for users.
        refused: Why other ways are not used.
    """

    compute: Rule
    name: str
    refused: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name + "".join(f"; not {reason}" for reason in self.refused)


def mlx_rule(
    queries: mx.array, keys: mx.array, values: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    """Compute the rule with MLX's own Metal kernel, from 0.32.3 on; arguments and results of `delta_rule`."""
    outputs, after = mx.fast.gated_delta_update(queries, keys, values, mx.exp(decay), beta, memory)
    return outputs, after


def rule_for(sizes: LinearAttentionConfig, *, by_kernel: bool = True) -> ChosenRule:
    """Return the way to compute the rule for heads of these sizes. The first call tries the candidates.

    Args:
        sizes: Sizes of the heads.
        by_kernel: Whether a kernel may compute it.
    """
    return _chosen(sizes, runs_on_cpu() or not by_kernel)


@cache
def _chosen(sizes: LinearAttentionConfig, plainly: bool) -> ChosenRule:
    refused: list[str] = []
    for name, rule in _candidates(sizes, plainly).items():
        reason = reason_against(_RuleTrial(rule, sizes), TOLERANCE)
        if reason is None:
            return ChosenRule(rule, name, tuple(refused))
        refused.append(f"{name}: {reason}")
    return ChosenRule(delta_rule, "plain operations", tuple(refused))


def _candidates(sizes: LinearAttentionConfig, plainly: bool) -> dict[str, Rule]:
    """Return kernels for this device, the fastest first; none on a CPU, where MLX's own is slower."""
    found: dict[str, Rule] = {}
    if plainly:
        return found
    if mx.metal.is_available() and hasattr(mx.fast, "gated_delta_update"):
        found["MLX's kernel"] = mlx_rule
    if can_take(sizes.linear_key_head_dim, sizes.linear_value_head_dim):
        found["a kernel of its own"] = kernel_rule
    return found


class _RuleTrial(Trial):
    """Two sequences of a few tokens.

    Args:
        rule: Rule to try.
        sizes: Sizes of the heads.
    """

    def __init__(self, rule: Rule, sizes: LinearAttentionConfig) -> None:
        self._rule = rule
        batch, length = 2, TRIED_TOKENS
        shared, heads = sizes.linear_num_key_heads, sizes.linear_num_value_heads
        key, value = sizes.linear_key_head_dim, sizes.linear_value_head_dim
        queries, keys, values, decay, beta, memory = random_arrays(
            [
                (batch, length, shared, key),
                (batch, length, shared, key),
                (batch, length, heads, value),
                (batch, length, heads),
                (batch, length, heads),
                (batch, heads, value, key),
            ]
        )
        keys = keys * mx.rsqrt((keys * keys).sum(axis=-1, keepdims=True))
        self._inputs = queries, keys, values, -mx.abs(decay), mx.sigmoid(beta), memory

    def by_kernel(self) -> Sequence[mx.array]:
        """See `Trial`."""
        return self._rule(*self._inputs)

    def plainly(self) -> Sequence[mx.array]:
        """See `Trial`."""
        return delta_rule(*self._inputs)
