"""Draws one token after another from logits, in float32, with explicit keys.

Defines the order of the steps and the state between them. A draw first searches a few thousand candidates.
Whether they were enough is known when the token is read, one step later, so no draw makes the decode loop
wait. If they were not, `Sampler.redraw` draws from the whole vocabulary.

Axes: R rows, V vocabulary.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

import mlx.core as mx

from metal_gen.sampling import blocks
from metal_gen.sampling.allowed import has_token, keep_allowed
from metal_gen.sampling.bias import add_bias, bias_arrays
from metal_gen.sampling.exponential import exp
from metal_gen.sampling.inverse_cdf import draw
from metal_gen.sampling.logits_error import no_token
from metal_gen.sampling.logprobs import LogprobArrays, token_logprobs
from metal_gen.sampling.penalties import TokenHistory, penalize
from metal_gen.sampling.random_keys import RandomKeys, fold, fold_rows, uniform, words
from metal_gen.sampling.strategy import SamplingStrategy, require_vocabulary
from metal_gen.sampling.truncation import truncate

# Enough for most nuclei. Small nuclei need fewer blocks, but save hardly any time.
NUCLEUS_BLOCKS = 128
FEWEST_BLOCKS, MOST_BLOCKS = 32, 256
SMALL_VOCABULARY = 16_384
DRAWS_AFTER_A_MISS = 16


class Status(IntEnum):
    """The result of a draw."""

    CERTAIN = 0
    UNCERTAIN = 1
    NOT_FINITE = 2


@dataclass(frozen=True)
class Draw:
    """The draw of a token, which may not be computed yet.

    Attributes:
        logits: The model's logits, (1, V).
        index: Index of the new token.
        outcome: Token id and `Status`, to be read together, (2,) int32.
        logprobs: Log-probabilities, if requested.
        allowed: Bits of the tokens it was drawn from, as for `keep_allowed`; None for all tokens.
    """

    logits: mx.array
    index: int
    outcome: mx.array
    logprobs: LogprobArrays | None
    allowed: mx.array | None = None

    @property
    def token(self) -> mx.array:
        """The token id, (1,). It is valid input for the next step even if the draw turns out uncertain."""
        return self.outcome[:1]

    @property
    def results(self) -> list[mx.array]:
        """Arrays to compute."""
        return [self.outcome, *(self.logprobs or ())]


@dataclass(frozen=True)
class DrawRule:
    """How a token is drawn from logits: a function of arrays alone, which can be compiled.

    Args:
        strategy: Strategy, whose penalties and `min_tokens` are applied beforehand.
        logprobs: Number of most probable tokens to report, as for `Sampler`.
    """

    strategy: SamplingStrategy
    logprobs: int | None

    def __call__(
        self, logits: mx.array, adjusted: mx.array, keys: mx.array, *, whole: bool = False
    ) -> tuple[mx.array, LogprobArrays | None]:
        """Draw one token for each row, independently of the other rows.

        Args:
            logits: The model's logits, (R, V); a single row if `logprobs` are requested.
            adjusted: Logits after penalties and bias, (R, V) float32.
            keys: Keys, (R, 2), or (2,) for one row; a greedy draw ignores them.
            whole: Search the whole vocabulary at once.

        Returns:
            Token ids followed by the `Status` of each, (2 R,) int32; and `Draw.logprobs`.
        """
        weights = None
        if self.strategy.is_greedy:
            token, largest = blocks.argmax(adjusted)
            status = mx.where(mx.abs(largest[:, 0]) < mx.inf, Status.CERTAIN, Status.NOT_FINITE)
        else:
            token, status, weights = draw_once(adjusted, self.strategy, uniform(keys), whole=whole)
        outcome = mx.concatenate([token.astype(mx.int32), status.astype(mx.int32)])
        if self.logprobs is None:
            return outcome, None
        return outcome, token_logprobs(logits, outcome[:1], weights, self.logprobs)

    def among(
        self,
        logits: mx.array,
        adjusted: mx.array,
        allowed: mx.array | None,
        keys: mx.array,
        *,
        whole: bool = False,
    ) -> tuple[mx.array, LogprobArrays | None]:
        """Draw one token for each row, from those that are allowed; see `Sampler.draw`."""
        if allowed is None:
            return self(logits, adjusted, keys, whole=whole)
        masked = keep_allowed(adjusted, allowed[:1])
        outcome, logprobs = self(logits, masked, keys, whole=whole)
        if allowed.shape[0] == 1:
            return outcome, logprobs
        # From a number of its own: the other draw must not depend on what this one gives.
        word = words(1)
        own = fold(keys, word) if keys.ndim == 1 else fold_rows(keys, mx.broadcast_to(word, keys.shape))
        free, free_logprobs = self(logits, adjusted, own, whole=whole)
        token, status = free.reshape(2, -1)
        comes = has_token(allowed[1], token) | (status != Status.CERTAIN)
        outcome = mx.where(mx.tile(comes, 2), free, outcome)
        if logprobs is None or free_logprobs is None:
            return outcome, None
        pairs = zip(free_logprobs, logprobs, strict=True)
        return outcome, LogprobArrays(*(mx.where(comes, one, other) for one, other in pairs))


class Sampler:
    """Draws the tokens of one text.

    Args:
        strategy: Sampling strategy.
        keys: Random keys of this text.
        prompt: Token ids of the prompt, which count for the repetition penalty.
        capacity: Maximum number of tokens, prompt and text together.
        ending_ids: Tokens that are not drawn before `strategy.min_tokens`.
        logprobs: Number of most probable tokens to report with the log-probabilities of each token; None
            reports no log-probabilities.

    Attributes:
        rule: Rule for drawing a token.
        keys: Random keys of this text.
    """

    def __init__(
        self,
        strategy: SamplingStrategy,
        keys: RandomKeys,
        *,
        prompt: Sequence[int],
        capacity: int,
        ending_ids: Collection[int] = (),
        logprobs: int | None = None,
    ) -> None:
        self.strategy = strategy
        self.rule = DrawRule(strategy, logprobs)
        self.keys = keys
        pairs = dict(strategy.logit_bias)
        self._bias = bias_arrays(pairs)
        self._early_bias = bias_arrays(pairs | dict.fromkeys(ending_ids, -math.inf))
        self._history = TokenHistory(prompt, capacity + 1) if strategy.has_penalties else None
        self._whole_until = 0

    def follows_rule_alone(self, index: int) -> bool:
        """Return whether the draw at this index depends on logits and key alone, and in the usual way."""
        return self._history is None and index >= max(self.strategy.min_tokens, self._whole_until)

    def draw(self, logits: mx.array, index: int, allowed: mx.array | None = None) -> Draw:
        """Start to draw a new token.

        Args:
            logits: The model's logits, (1, V).
            index: Index of the new token.
            allowed: Bits of the tokens to draw from, (1, W) as for `keep_allowed`; None for all tokens. A
                second row has tokens that come instead: one of them does if a draw from all tokens gives it.
        """
        return self._draw(logits, index, allowed, whole=index < self._whole_until)

    def redraw(self, missed: Draw) -> Draw:
        """Draw again from the whole vocabulary, with the same random number."""
        self._whole_until = missed.index + DRAWS_AFTER_A_MISS
        return self._draw(missed.logits, missed.index, missed.allowed, whole=True)

    def accept(self, draw: Draw) -> None:
        """Add a draw's token to the text, whether or not it is computed yet."""
        if self._history is not None:
            self._history.append(draw.token.astype(mx.uint32))

    def note(self, tokens: Sequence[int] | mx.array) -> None:
        """Record tokens of the text that were not drawn. An array, (N,), need not be computed yet."""
        if self._history is not None:
            ids = tokens if isinstance(tokens, mx.array) else mx.array(list(tokens), mx.uint32)
            self._history.append(ids.astype(mx.uint32))

    def take_back(self, count: int) -> None:
        """Take back the last tokens."""
        if self._history is not None:
            self._history.take_back(count)

    def _draw(self, logits: mx.array, index: int, allowed: mx.array | None, *, whole: bool) -> Draw:
        adjusted = self._adjust(logits.astype(mx.float32), index)
        key = self.keys.key(index)
        outcome, logprobs = self.rule.among(logits, adjusted, allowed, key, whole=whole)
        return Draw(logits, index, outcome, logprobs, allowed)

    def _adjust(self, logits: mx.array, index: int) -> mx.array:
        if self._history is not None:
            logits = penalize(logits, self.strategy, self._history)
        return add_bias(logits, self._early_bias if index < self.strategy.min_tokens else self._bias)


def sample_token(logits: mx.array, strategy: SamplingStrategy, key: mx.array) -> mx.array:
    """Choose one token per row, without regard to earlier tokens.

    Args:
        logits: Logits, (R, V) or (V,), of any floating dtype; computation is in float32.
        strategy: Strategy; its penalties and `min_tokens` need a text and are left to `generate`.
        key: Key from `mx.random.key`. A row's draw depends on it and on the row's index.

    Returns:
        Token ids, (R,) or ().

    Raises:
        UsageError: The strategy's bias names a token beyond V.
        LogitsError: A row has NaN, plus infinity, or only minus infinity; NoTokenLeftError if the strategy
            caused it.
    """
    require_vocabulary(strategy, logits.shape[-1])
    rows = logits.reshape(-1, logits.shape[-1]).astype(mx.float32)
    rows = add_bias(rows, bias_arrays(dict(strategy.logit_bias)))
    if strategy.is_greedy:
        tokens, largest = blocks.argmax(rows)
        finite = mx.isfinite(largest).all()
    else:
        keys = mx.stack([fold(key, words(row)) for row in range(rows.shape[0])])
        numbers = uniform(keys)
        tokens, status, _ = draw_once(rows, strategy, numbers, whole=False)
        if (status == Status.UNCERTAIN).any().item():
            tokens, status, _ = draw_once(rows, strategy, numbers, whole=True)
        finite = (status != Status.NOT_FINITE).all()
    if not finite.item():
        raise no_token("no token can be drawn", logits)
    return tokens.reshape(logits.shape[:-1])


def draw_once(
    logits: mx.array, strategy: SamplingStrategy, uniform: mx.array, *, whole: bool
) -> tuple[mx.array, mx.array, tuple[mx.array, mx.array | None]]:
    """Draw one token per row.

    Args:
        logits: Logits after penalties and bias, (R, V) float32.
        strategy: Strategy with temperature, top-k, top-p and min-p.
        uniform: Random numbers in [0, 1), (R, 1).
        whole: Search the whole vocabulary at once.

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
    status = mx.where(mx.abs(candidates.largest) < mx.inf, status, Status.NOT_FINITE)
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
