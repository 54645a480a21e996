"""Draws from logits as compiled functions: what a draw adds to a step is handed over at once.

Axes: V vocabulary, W words of 32 bits.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import mlx.core as mx

from metal_gen.sampling.bias import add_bias, bias_arrays
from metal_gen.sampling.logprobs import LogprobArrays
from metal_gen.sampling.random_keys import fold, words
from metal_gen.sampling.sampler import Draw, DrawRule, Sampler

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
        outcome, *logprobs = self._function(sampler.rule, rows)(
            logits, sampler.keys.base, words(index), *bits
        )
        return Draw(logits, index, outcome, LogprobArrays(*logprobs) if logprobs else None, allowed)


def _compile(rule: DrawRule, rows: int) -> Callable[..., Sequence[mx.array]]:
    """Compile the draws of a rule, with so many rows of bits."""
    bias = bias_arrays(dict(rule.strategy.logit_bias))
    mx.eval(bias)

    def draw(logits: mx.array, base: mx.array, index: mx.array, *bits: mx.array) -> list[mx.array]:
        adjusted = add_bias(logits.astype(mx.float32), bias)
        allowed = bits[0] if rows else None
        outcome, logprobs = rule.among(logits, adjusted, allowed, fold(base, index))
        return [outcome, *(logprobs or ())]

    return mx.compile(draw)
