"""Draws from logits as compiled functions: what a draw adds to a step is handed over at once.

Axes: V vocabulary, W words of 32 bits.
"""

from collections.abc import Callable
from functools import lru_cache

import mlx.core as mx

from metal_gen.sampling.draw_rule import Draw, DrawRule, RuleOutcome
from metal_gen.sampling.random_keys import fold, words
from metal_gen.sampling.sampler import Sampler

MOST_KEPT = 16


class CompiledDraws:
    """Compiled functions that draw one token each, by their rules."""

    def __init__(self) -> None:
        self._function = lru_cache(maxsize=MOST_KEPT)(_compile)

    @property
    def count(self) -> int:
        """Number of functions compiled so far."""
        return self._function.cache_info().misses

    def draw(self, logits: mx.array, sampler: Sampler, index: int, allowed: mx.array | None) -> Draw:
        """Start to draw a token as `Sampler.draw` does, with the same arguments and result."""
        if not sampler.follows_rule_alone(index):
            return sampler.draw(logits, index, allowed)
        rows = 0 if allowed is None else allowed.shape[0]
        bits = () if allowed is None else (allowed,)
        function = self._function(sampler.rule, rows)
        outcome, logprobs = function(logits, sampler.keys.base, words(index), *bits)
        return Draw(logits, index, outcome, logprobs, allowed)


def _compile(rule: DrawRule, rows: int) -> Callable[..., RuleOutcome]:
    """Compile the draws of a rule, with so many rows of bits."""

    def draw(logits: mx.array, base: mx.array, index: mx.array, *bits: mx.array) -> RuleOutcome:
        allowed = bits[0] if rows else None
        return rule.among(logits, rule.adjusted(logits), allowed, fold(base, index))

    return mx.compile(draw)
