"""Draws from logits as compiled functions: what a draw adds to a step is handed over at once.

Axes: V vocabulary.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import mlx.core as mx

from metal_gen.sampling.allowed import Allowed, Limits
from metal_gen.sampling.draw_rule import Draw, DrawRule, RuleOutcome
from metal_gen.sampling.random_keys import fold, words
from metal_gen.sampling.sampler import DRAWS_AFTER_A_MISS, Sampler

MOST_KEPT = 16


class Kind(NamedTuple):
    """What a function is compiled for.

    Attributes:
        rule: Rule of the draw.
        whole: Whether it searches the whole vocabulary at once.
        limits: What limits it.
    """

    rule: DrawRule
    whole: bool
    limits: Limits


class CompiledDraws:
    """Compiled functions that draw one token each.

    Attributes:
        count: Number of functions compiled so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._function = lru_cache(maxsize=MOST_KEPT)(self._compile)
        # How many draws have searched the whole vocabulary.
        self._whole_draws = 0

    def draw(self, logits: mx.array, sampler: Sampler, index: int, allowed: Allowed | None) -> Draw:
        """Start to draw a token as `Sampler.draw` does, with the same arguments and result."""
        whole = sampler.searches_whole(index)
        self._whole_draws += whole
        # In most texts candidates are always enough, and the draws after one miss are not worth a function.
        is_rare = whole and self._whole_draws <= DRAWS_AFTER_A_MISS
        if is_rare or not sampler.follows_rule(index):
            return sampler.draw(logits, index, allowed)
        kind = Kind(sampler.rule, whole, Limits.of(allowed))
        # Penalties depend on the length of the text, and each length would be another function.
        penalized = sampler.penalized(logits)
        outcome, logprobs = self._function(kind)(logits, penalized, sampler.keys.base, words(index), allowed)
        return Draw(logits, index, outcome, logprobs, allowed)

    def _compile(self, kind: Kind) -> Callable[..., RuleOutcome]:
        """Compile the draws of a kind."""
        self.count += 1
        rule, whole = kind.rule, kind.whole

        def draw(
            logits: mx.array, penalized: mx.array, base: mx.array, index: mx.array, allowed: Allowed | None
        ) -> RuleOutcome:
            return rule.among(logits, rule.adjusted(penalized), allowed, fold(base, index), whole=whole)

        return mx.compile(draw)
