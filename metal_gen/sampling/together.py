"""Draws tokens for several texts at once, each as its own sampler would draw it.

Axes: R texts, V vocabulary.
"""

from collections.abc import Sequence

import mlx.core as mx

from metal_gen.sampling.random_keys import fold_rows
from metal_gen.sampling.sampler import Draw, DrawRule, Sampler, add_bias, bias_arrays


def draw_together(logits: mx.array, samplers: Sequence[Sampler], indices: Sequence[int]) -> list[Draw]:
    """Start to draw a token for each of several texts, in one operation for texts with the same rule.

    Args:
        logits: Logits of the texts in turn, (R, V).
        samplers: Sampler of each text.
        indices: Index of each text's new token.

    Returns:
        The draw that each text's own `Sampler.draw` would return.
    """
    rows = list(zip(samplers, indices, strict=True))
    alike: dict[DrawRule, list[int]] = {}
    for row, (sampler, index) in enumerate(rows):
        if sampler.rule.logprobs is None and sampler.follows_rule_alone(index):
            alike.setdefault(sampler.rule, []).append(row)
    draws: dict[int, Draw] = {}
    for rule, members in alike.items():
        if len(members) == 1:
            continue
        few = logits if len(members) == len(rows) else logits[mx.array(members)]
        bias = bias_arrays(dict(rule.strategy.logit_bias))
        keys = fold_rows(*key_rows([samplers[row] for row in members], [indices[row] for row in members]))
        outcomes, _ = rule(few, add_bias(few.astype(mx.float32), bias), keys)
        draws |= dict(
            zip(members, split_draws(few, outcomes, [indices[row] for row in members]), strict=True)
        )
    return [
        draws[row] if row in draws else sampler.draw(logits[row : row + 1], index)
        for row, (sampler, index) in enumerate(rows)
    ]


def key_rows(samplers: Sequence[Sampler], indices: Sequence[int]) -> tuple[mx.array, mx.array]:
    """Return what the keys of several draws are folded from: bases, (R, 2), and words, (R, 2)."""
    numbers = [[index >> 32, index & 0xFFFFFFFF] for index in indices]
    return mx.stack([sampler.keys.base for sampler in samplers]), mx.array(numbers, dtype=mx.uint32)


def split_draws(logits: mx.array, outcomes: mx.array, indices: Sequence[int]) -> list[Draw]:
    """Split the outcomes of a `DrawRule` for several rows into draws."""
    pairs = outcomes.reshape(2, -1)
    return [Draw(logits[row : row + 1], index, pairs[:, row], None) for row, index in enumerate(indices)]
