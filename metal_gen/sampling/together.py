"""Draws tokens for several texts at once, each as its own sampler would draw it.

Axes: R texts, V vocabulary.
"""

from collections.abc import Sequence

import mlx.core as mx

from metal_gen.sampling.allowed import Allowed
from metal_gen.sampling.draw_rule import Draw, DrawRule
from metal_gen.sampling.random_keys import fold, words_of
from metal_gen.sampling.sampler import Sampler


def draw_together(
    logits: mx.array,
    samplers: Sequence[Sampler],
    indices: Sequence[int],
    allowed: Sequence[Allowed | None] = (),
) -> list[Draw]:
    """Start to draw a token for each of several texts, in one operation for texts with the same rule.

    Args:
        logits: Logits of the texts in turn, (R, V).
        samplers: Sampler of each text.
        indices: Index of each text's new token.
        allowed: For each text, as for `Sampler.draw`; empty if all texts may have any token.

    Returns:
        The draw that each text's own `Sampler.draw` would return.
    """
    rows = list(zip(samplers, indices, allowed or [None] * len(samplers), strict=True))
    alike: dict[tuple[DrawRule, bool], list[int]] = {}
    for row, (sampler, index, own) in enumerate(rows):
        is_one_draw = own is None or own.instead is None
        if is_one_draw and sampler.rule.logprobs is None and sampler.follows_rule_alone(index):
            alike.setdefault((sampler.rule, own is not None), []).append(row)
    draws: dict[int, Draw] = {}
    for (rule, _), members in alike.items():
        if len(members) == 1:
            continue
        few = logits if len(members) == len(rows) else logits[mx.array(members)]
        limits = [own for row in members if (own := rows[row][2]) is not None]
        places = [indices[row] for row in members]
        masks = [own.tokens for own in limits]
        outcomes = draw_alike(rule, few, [samplers[row] for row in members], places, masks)
        split = split_draws(few, outcomes, places, limits)
        draws |= dict(zip(members, split, strict=True))
    return [
        draws[row] if row in draws else sampler.draw(logits[row : row + 1], index, own)
        for row, (sampler, index, own) in enumerate(rows)
    ]


def draw_alike(
    rule: DrawRule,
    logits: mx.array,
    samplers: Sequence[Sampler],
    indices: Sequence[int],
    masks: Sequence[mx.array],
) -> mx.array:
    """Draw a token for each row by the rule of all rows, in one operation.

    Args:
        rule: The rule, without log-probabilities.
        logits: Logits, (R, V).
        samplers: Sampler of each row.
        indices: Index of each row's new token.
        masks: Bits of the tokens that each row may draw, (1, W) each; empty if all may draw any.

    Returns:
        Token ids followed by the `Status` of each, (2 R,) int32.
    """
    keys = samplers[0].keys.base  # A greedy draw ignores it.
    if not rule.strategy.is_greedy:
        keys = fold(join_bases(samplers), words_of(indices))
    adjusted = rule.adjusted(logits)
    if masks:
        outcomes, _ = rule.at_first(logits, adjusted, mx.concatenate(list(masks)), keys)
    else:
        outcomes, _ = rule(logits, adjusted, keys)
    return outcomes


def join_bases(samplers: Sequence[Sampler]) -> mx.array:
    """Return `RandomKeys.base` of several samplers, (R, 2)."""
    return mx.stack([sampler.keys.base for sampler in samplers])


def split_draws(
    logits: mx.array, outcomes: mx.array, indices: Sequence[int], allowed: Sequence[Allowed] = ()
) -> list[Draw]:
    """Split the outcomes of a `DrawRule` for several rows into draws; `allowed` is empty or of each row."""
    return [
        Draw(logits, index, outcomes, None, allowed[row] if allowed else None, row)
        for row, index in enumerate(indices)
    ]


def join_tokens(draws: Sequence[Draw | None]) -> mx.array:
    """Return the tokens of draws, (R,) int32, and any tokens in place of those that are missing.

    If each draw has the row of all draws that were made together, no operation is needed for each.
    """
    made = [draw for draw in draws if draw is not None]
    outcomes = made[0].outcomes
    if outcomes.size == 2 * len(draws) and all(
        draw is None or (draw.outcomes is outcomes and draw.row == row) for row, draw in enumerate(draws)
    ):
        return outcomes[: len(draws)]
    missing = mx.zeros(1, mx.int32)
    return mx.concatenate([missing if draw is None else draw.token for draw in draws])
