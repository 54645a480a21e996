"""Masks: one bit per token says whether the token may come next.

Axes: R rows, V vocabulary, W words of 32 bits.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import mlx.core as mx

WORD_BITS = 32


class Allowed(NamedTuple):
    """The tokens that a text may have next, as bits of words: token t is bit t % 32 of word t // 32.

    Attributes:
        tokens: Bits of the tokens to draw from, (1, W) uint32, lowest bit first.
        instead: Bits of tokens that come instead if a draw from all tokens gives one of them, (1, W); None
            without such tokens.
    """

    tokens: mx.array
    instead: mx.array | None = None


class Limits(NamedTuple):
    """What a function that draws is compiled for: whether it has an `Allowed`, and all of its parts."""

    has_tokens: bool
    has_instead: bool

    @classmethod
    def of(cls, allowed: Allowed | None) -> "Limits":
        """Return those of a draw from some tokens; None for all."""
        return cls(allowed is not None, allowed is not None and allowed.instead is not None)


def word_count(vocabulary: int) -> int:
    """Return W, the number of words that hold one bit per token."""
    return -(-vocabulary // WORD_BITS)


def keep_allowed(logits: mx.array, bits: mx.array, *, must_come: bool = False) -> mx.array:
    """Set the logits of all other tokens to minus infinity.

    Args:
        logits: Logits, (R, V) float32.
        bits: Bits, as in `Allowed`, (R, W) or (1, W).
        must_come: Whether a token that is the only one allowed has to come, whatever bans it: minus infinity
            becomes 0. Guides also give such tokens without a draw, if no log-probabilities are wanted.

    Returns:
        Logits, (R, V) float32.
    """
    return _compiled(must_come)(logits, bits)


def has_token(bits: mx.array, token: mx.array) -> mx.array:
    """Return whether each token, (R,), is among those of some bits, (W,)."""
    return ((bits[token // WORD_BITS] >> (token % WORD_BITS).astype(mx.uint32)) & 1).astype(mx.bool_)


@cache
def _compiled(must_come: bool) -> Callable[[mx.array, mx.array], mx.array]:
    places = mx.arange(WORD_BITS, dtype=mx.uint32)
    mx.eval(places)

    def keep(logits: mx.array, allowed: mx.array) -> mx.array:
        vocabulary, words = logits.shape[-1], allowed.shape[-1]
        if must_come:
            logits = mx.where(_is_single(allowed) & (logits == -mx.inf), 0.0, logits)
        # One operation of the device, unless the last word is not full.
        if padding := words * WORD_BITS - vocabulary:
            logits = mx.pad(logits, [(0, 0), (0, padding)])
        is_allowed = ((allowed[:, :, None] >> places) & 1).astype(mx.bool_)
        kept = mx.where(is_allowed, logits.reshape(-1, words, WORD_BITS), -mx.inf)
        return kept.reshape(logits.shape)[:, :vocabulary]

    # Not compiled, each operation writes an array of the size of the vocabulary.
    return mx.compile(keep)


def _is_single(bits: mx.array) -> mx.array:
    """Return whether a single bit is set, (R, 1)."""
    several = bits & (bits - 1)
    count = ((bits != 0).astype(mx.uint32) + (several != 0)).sum(axis=-1, keepdims=True)
    return count == 1
