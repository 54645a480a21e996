"""Draws from logits as compiled functions: what a draw adds to a step is handed over at once.

Axes: V vocabulary.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import mlx.core as mx

from metal_gen.sampling.allowed import Allowed
from metal_gen.sampling.draw_rule import Draw, DrawRule, RuleOutcome
from metal_gen.sampling.random_keys import fold, words
from metal_gen.sampling.sampler import Sampler

MOST_KEPT = 16


class Limits(NamedTuple):
    """What limits a draw: whether some tokens alone are allowed, and whether others may come instead."""

    has_tokens: bool
    has_instead: bool


class CompiledDraws:
    """Compiled functions that draw one token each, by their rules."""

    def __init__(self) -> None:
        self._function = lru_cache(maxsize=MOST_KEPT)(_compile)

    @property
    def count(self) -> int:
        """Number of functions compiled so far."""
        return self._function.cache_info().misses

    def draw(self, logits: mx.array, sampler: Sampler, index: int, allowed: Allowed | None) -> Draw:
        """Start to draw a token as `Sampler.draw` does, with the same arguments and result."""
        if not sampler.follows_rule(index):
            return sampler.draw(logits, index, allowed)
        limits = Limits(allowed is not None, allowed is not None and allowed.instead is not None)
        function = self._function(sampler.rule, limits)
        # Penalties depend on the length of the text, and each length would be another function.
        penalized = sampler.penalized(logits)
        outcome, logprobs = function(logits, penalized, sampler.keys.base, words(index), allowed)
        return Draw(logits, index, outcome, logprobs, allowed)


def _compile(rule: DrawRule, limits: Limits) -> Callable[..., RuleOutcome]:
    """Compile the draws of a rule. Those with other limits are another function."""

    def draw(
        logits: mx.array, penalized: mx.array, base: mx.array, index: mx.array, allowed: Allowed | None
    ) -> RuleOutcome:
        return rule.among(logits, rule.adjusted(penalized), allowed, fold(base, index))

    return mx.compile(draw)
