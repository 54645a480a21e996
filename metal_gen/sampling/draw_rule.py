"""How a token is drawn from logits, in float32 and with an explicit key.

A draw first searches a few thousand candidates. Whether they were enough is known when the token is read, one
step later, so no draw makes the decode loop wait. If they were not, the whole vocabulary is searched.

Axes: R rows, V vocabulary.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import mlx.core as mx

from metal_gen.sampling import blocks
from metal_gen.sampling.allowed import Allowed, has_token, keep_allowed
from metal_gen.sampling.bias import add_bias, bias_arrays
from metal_gen.sampling.exponential import exp
from metal_gen.sampling.inverse_cdf import draw
from metal_gen.sampling.logprobs import LogprobArrays, token_logprobs
from metal_gen.sampling.random_keys import fold, uniform, words
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.sampling.truncation import truncate

# Enough for most nuclei. Small nuclei need fewer blocks, but save hardly any time.
NUCLEUS_BLOCKS = 128
FEWEST_BLOCKS, MOST_BLOCKS = 32, 256
SMALL_VOCABULARY = 16_384
# Token ids followed by the `Status` of each, (2 R,) int32; and log-probabilities, if requested.
RuleOutcome = tuple[mx.array, LogprobArrays | None]


class Status(IntEnum):
    """The result of a draw."""

    CERTAIN = 0
    UNCERTAIN = 1
    NOT_FINITE = 2


@dataclass(frozen=True)
class Draw:
    """The draw of a token, which may not be computed yet, in a row of draws that are made together.

    Attributes:
        all_logits: The model's logits, (R, V).
        index: Index of the new token.
        outcomes: Token ids followed by the `Status` of each, to be read together, (2 R,) int32.
        logprobs: Log-probabilities, if requested.
        allowed: The tokens it was drawn from; None for all.
        row: Its row.
    """

    all_logits: mx.array
    index: int
    outcomes: mx.array
    logprobs: LogprobArrays | None
    allowed: Allowed | None = None
    row: int = 0

    @property
    def logits(self) -> mx.array:
        """The model's logits, (1, V)."""
        return self.all_logits[self.row : self.row + 1] if self.outcomes.size > 2 else self.all_logits

    @property
    def token(self) -> mx.array:
        """The token id, (1,). It is valid input for the next step even if the draw turns out uncertain."""
        return self.outcomes[self.row : self.row + 1]

    @property
    def results(self) -> list[mx.array]:
        """Arrays to compute."""
        return [self.outcomes, *(self.logprobs or ())]


@dataclass(frozen=True)
class DrawRule:
    """How a token is drawn from logits: a function of arrays alone, which can be compiled.

    Args:
        strategy: Strategy, whose penalties and `min_tokens` are applied beforehand.
        logprobs: Number of most probable tokens to report, as for `Sampler`.
    """

    strategy: SamplingStrategy
    logprobs: int | None

    @cached_property
    def bias(self) -> tuple[mx.array, mx.array] | None:
        """Token ids and their bias, as for `add_bias`."""
        return bias_arrays(dict(self.strategy.logit_bias))

    def adjusted(self, logits: mx.array) -> mx.array:
        """Return logits (R, V) in float32, with the bias of the strategy."""
        return add_bias(logits.astype(mx.float32), self.bias)

    def __call__(
        self,
        logits: mx.array,
        adjusted: mx.array,
        keys: mx.array,
        *,
        whole: bool = False,
        failed: Status = Status.NOT_FINITE,
    ) -> RuleOutcome:
        """Draw one token for each row, independently of the other rows.

        Args:
            logits: The model's logits, (R, V); a single row if `logprobs` are requested.
            adjusted: Logits after penalties and bias, (R, V) float32.
            keys: Keys, (R, 2), or (2,) for one row; a greedy draw ignores them.
            whole: Search the whole vocabulary at once.
            failed: Status of a row without a token to choose.
        """
        weights = None
        if self.strategy.is_greedy:
            token, largest = blocks.argmax(adjusted)
            status = mx.where(mx.abs(largest[:, 0]) < mx.inf, Status.CERTAIN, failed)
        else:
            token, status, weights = draw_once(
                adjusted, self.strategy, uniform(keys), whole=whole, failed=failed
            )
        outcome = mx.concatenate([token.astype(mx.int32), status.astype(mx.int32)])
        if self.logprobs is None:
            return outcome, None
        return outcome, token_logprobs(logits, outcome[:1], weights, self.logprobs)

    def among(
        self,
        logits: mx.array,
        adjusted: mx.array,
        allowed: Allowed | None,
        keys: mx.array,
        *,
        whole: bool = False,
    ) -> RuleOutcome:
        """Draw one token for each row, from those that are allowed in all of them; None for all tokens."""
        if allowed is None:
            return self(logits, adjusted, keys, whole=whole)
        if whole:
            masked = keep_allowed(adjusted, allowed.tokens, must_come=True)
            outcome, logprobs = self(logits, masked, keys, whole=True)
        else:
            outcome, logprobs = self.at_first(logits, adjusted, allowed.tokens, keys)
        if allowed.instead is None:
            return outcome, logprobs
        # From a number of its own: the other draw must not depend on what this one gives.
        free, free_logprobs = self(logits, adjusted, fold(keys, words(1)), whole=whole)
        token, status = free.reshape(2, -1)
        comes = has_token(allowed.instead[0], token) | (status != Status.CERTAIN)
        outcome = mx.where(mx.tile(comes, 2), free, outcome)
        if logprobs is None or free_logprobs is None:
            return outcome, None
        pairs = zip(free_logprobs, logprobs, strict=True)
        return outcome, LogprobArrays(*(mx.where(comes, one, other) for one, other in pairs))

    def at_first(self, logits: mx.array, adjusted: mx.array, bits: mx.array, keys: mx.array) -> RuleOutcome:
        """Draw one token for each row from those of some bits, (R, W) or (1, W).

        Where all of them are banned, the draw is uncertain: one that searches the whole vocabulary finds out
        whether there is a single one, which has to come. That takes longer, and is seldom asked.
        """
        return self(logits, keep_allowed(adjusted, bits), keys, failed=Status.UNCERTAIN)


class RuleDraws(NamedTuple):
    """Successive draws of one text that depend on logits and keys alone.

    Attributes:
        rule: Rule for all of them.
        base: `RandomKeys.base` of the text, (2,).
        first: Index of the first one.
    """

    rule: DrawRule
    base: mx.array
    first: int


def draw_once(
    logits: mx.array,
    strategy: SamplingStrategy,
    uniform: mx.array,
    *,
    whole: bool,
    failed: Status = Status.NOT_FINITE,
) -> tuple[mx.array, mx.array, tuple[mx.array, mx.array | None]]:
    """Draw one token per row.

    Args:
        logits: Logits after penalties and bias, (R, V) float32.
        strategy: Strategy with temperature, top-k, top-p and min-p.
        uniform: Random numbers in [0, 1), (R, 1).
        whole: Search the whole vocabulary at once.
        failed: Status of a row without a token to choose.

    Returns:
        Token ids (R,), `Status` (R,), and the weights drawn from with their ids, each (R, C).
    """
    scaled = logits if strategy.temperature == 1 else logits / strategy.temperature
    count = 0 if whole else candidate_blocks(strategy, scaled.shape[-1])
    candidates = blocks.largest_blocks(scaled, count) if count else blocks.whole_vocabulary(scaled)
    total = None
    if count and strategy.truncates_by_mass and strategy.top_k is None:
        total = (
            blocks.in_blocks(exp(scaled - candidates.largest), 0.0).sum(axis=-1).sum(axis=-1, keepdims=True)
        )
    weights, certain = truncate(candidates, strategy, total)
    place = draw(weights, uniform)
    tokens = place if candidates.ids is None else mx.take_along_axis(candidates.ids, place, axis=-1)
    status = mx.where(certain, Status.CERTAIN, Status.UNCERTAIN)
    status = mx.where(mx.abs(candidates.largest) < mx.inf, status, failed)
    return tokens[:, 0], status[:, 0], (weights, candidates.ids)


def candidate_blocks(strategy: SamplingStrategy, vocabulary: int) -> int:
    """Return how many blocks of candidates to search first; 0 for the whole vocabulary."""
    if strategy.top_k is not None:
        count = max(FEWEST_BLOCKS, strategy.top_k + 1)
    elif strategy.truncates_by_mass or strategy.min_p:
        count = NUCLEUS_BLOCKS
    else:
        return 0
    too_small = vocabulary <= SMALL_VOCABULARY or count * blocks.BLOCK >= vocabulary
    return 0 if too_small or count > MOST_BLOCKS else count
