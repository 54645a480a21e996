"""Draws of the target's own token at each place of a pass over guesses, and what a guide allows there.

Axes: R rows, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from metal_gen.engine.guide import TextBounds, TokenGuide
from metal_gen.sampling.allowed import WORD_BITS, Allowed
from metal_gen.sampling.draw_rule import Draw
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.together import draw_alike
from metal_gen.speculation.source import Guesses

# The tokens that each row may draw; None for all. Empty if no row is limited.
RowLimits = Sequence[Allowed | None]


@dataclass
class RowDraws:
    """The draws of successive tokens, which may not be computed yet.

    Attributes:
        logits: The model's logits, (R, V); rows that fill a pass up may follow. With `draws`, of one row.
        index: Index of the first token.
        outcomes: Token ids followed by the `Status` of each, (2 R,) int32.
        allowed: The tokens that each row may draw.
        draws: The draws one by one, if they were not made together.
    """

    logits: mx.array
    index: int
    outcomes: mx.array
    allowed: RowLimits
    draws: list[Draw] | None = None

    @property
    def results(self) -> list[mx.array]:
        """Arrays to compute."""
        results = [self.outcomes]
        for draw in self.draws or ():
            results += draw.results
        return results

    def one(self, row: int) -> Draw:
        """Return the draw of a row."""
        if self.draws is not None:
            return self.draws[row]
        own = self.allowed[row] if self.allowed else None
        return Draw(self.logits, self.index + row, self.outcomes, None, own, row)

    def read(self) -> tuple[list[int], list[int]]:
        """Wait for the draws. Return the token ids, and the status of each."""
        numbers: list[int] = self.outcomes.tolist()  # type: ignore[assignment]
        count = len(numbers) // 2
        return numbers[:count], numbers[count:]


def from_draws(draws: list[Draw]) -> RowDraws:
    """Return draws that have been made one by one."""
    if len(draws) == 1:
        return RowDraws(draws[0].logits, draws[0].index, draws[0].outcomes, (), draws)
    outcomes = mx.stack([draw.outcomes for draw in draws], axis=1).reshape(-1)
    return RowDraws(draws[0].logits, draws[0].index, outcomes, (), draws)


def draw_rows(
    logits: mx.array, sampler: Sampler, index: int, guesses: mx.array, allowed: RowLimits = ()
) -> RowDraws:
    """Start to draw the tokens after the last token of a text and after each guess.

    Args:
        logits: Logits of these places, (R, V).
        sampler: Sampler of the text, which has its last token.
        index: Index of the first token to draw.
        guesses: Guesses, (R - 1,).
        allowed: The tokens that each row may draw.
    """
    count = logits.shape[0]
    is_plain = sampler.rule.logprobs is None and sampler.follows_rule_alone(index)
    if count > 1 and is_plain and are_alike(allowed):
        masks = [each.tokens for each in allowed if each is not None]
        indices = range(index, index + count)
        outcomes = draw_alike(sampler.rule, logits, [sampler] * count, indices, masks)
        return RowDraws(logits, index, outcomes, allowed)
    draws = []
    for row in range(count):
        own = allowed[row] if allowed else None
        draws.append(sampler.draw(logits[row : row + 1], index + row, own))
        if row + 1 < count:
            sampler.note(guesses[row : row + 1])
    sampler.take_back(count - 1)
    return from_draws(draws)


def are_alike(allowed: RowLimits) -> bool:
    """Return whether all rows have a mask, or no row has one, and nothing comes instead."""
    is_one_draw = all(each is None or each.instead is None for each in allowed)
    return is_one_draw and len({each is None for each in allowed}) < 2


def cut_by_guide(guesses: Guesses, guide: TokenGuide, bounds: TextBounds) -> tuple[Guesses | None, RowLimits]:
    """Cut guesses before the first that the guide does not allow, or after which it does not draw.

    Returns:
        The guesses, or None if none are left; and for each of them and the token after them, the tokens
        to draw from.
    """
    tokens = guesses.known
    allowed: list[Allowed | None] = []
    for token in tokens:
        allowed.append(bounds.allowed())
        if token in bounds.endings or not _is_allowed(allowed[-1], token):
            break
        if guide.accept(token) is not None or guide.forced():
            guide.take_back(1)
            break
    else:
        allowed.append(bounds.allowed())
    count = len(allowed) - 1
    guide.take_back(count)
    return (Guesses(tokens[:count], guesses.kind) if count or not tokens else None), allowed


def _is_allowed(allowed: Allowed | None, token: int) -> bool:
    if allowed is None:
        return True
    words: Any = memoryview(allowed.tokens)  # type: ignore[arg-type]
    return bool(words[0, token // WORD_BITS] >> token % WORD_BITS & 1)
