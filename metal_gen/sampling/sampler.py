"""Draws one token after another from logits, in float32, with explicit keys.

Owns the order of the steps and the state between them. A draw looks at a few thousand candidates
first; whether they were enough is known when its token is read, one step later, so that no draw
makes the decode loop wait. `Sampler.redraw` then draws from the whole vocabulary.

Axes: R rows, V vocabulary.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

import mlx.core as mx

from metal_gen.errors import CheckpointError, ExitCode
from metal_gen.sampling import blocks
from metal_gen.sampling.exponential import exp
from metal_gen.sampling.inverse_cdf import draw
from metal_gen.sampling.logprobs import LogprobArrays, token_logprobs
from metal_gen.sampling.penalties import TokenHistory, penalize
from metal_gen.sampling.random_keys import RandomKeys, fold, uniform, words
from metal_gen.sampling.strategy import SamplingStrategy, require_vocabulary
from metal_gen.sampling.truncation import truncate

# Enough for most nuclei; those of a few tokens would do with less, at hardly less cost.
NUCLEUS_BLOCKS = 128
FEWEST_BLOCKS, MOST_BLOCKS = 32, 256
SMALL_VOCABULARY = 16_384
DRAWS_AFTER_A_MISS = 16


class Status(IntEnum):
    """What became of a draw."""

    CERTAIN = 0
    UNCERTAIN = 1
    NOT_FINITE = 2


class LogitsError(CheckpointError):
    """Logits with NaN or plus infinity, or nothing but minus infinity: no token was chosen."""


class NoTokenLeftError(LogitsError):
    """The logits are sound, but a strategy bans every token."""

    exit_code = ExitCode.CONFIGURATION


@dataclass(frozen=True)
class Draw:
    """A token on its way.

    Attributes:
        logits: (1, V) as the model gave them.
        index: Of the new token.
        outcome: (2,) int32: the token's id and its `Status`, to be read together.
        logprobs: Where they were asked for.
    """

    logits: mx.array
    index: int
    outcome: mx.array
    logprobs: LogprobArrays | None

    @property
    def token(self) -> mx.array:
        """(1,) id; valid to compute on even where the draw will turn out uncertain."""
        return self.outcome[:1]

    @property
    def results(self) -> list[mx.array]:
        """What is to be computed."""
        return [self.outcome, *(self.logprobs or ())]


@dataclass(frozen=True)
class DrawRule:
    """How a token is drawn from logits: a function of arrays alone, which can be compiled.

    Args:
        strategy: Its penalties and `min_tokens` have been applied before.
        logprobs: As for `Sampler`.
    """

    strategy: SamplingStrategy
    logprobs: int | None

    def __call__(
        self, logits: mx.array, adjusted: mx.array, keys: mx.array, *, whole: bool = False
    ) -> tuple[mx.array, LogprobArrays | None]:
        """Draw one token for each row, which no other row has a part in.

        Args:
            logits: (R, V) as the model gave them; one row where `logprobs` are wanted.
            adjusted: (R, V) float32, after penalties and bias.
            keys: (R, 2), or (2,) for one row; greedy takes no account of them.
            whole: Look at the whole vocabulary at once.

        Returns:
            (2 R,) int32, the ids and then the `Status` of each; and `Draw.logprobs`.
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


class Sampler:
    """Draws the tokens of one text.

    Args:
        strategy: How.
        keys: Of this text.
        prompt: Its token ids; they count for the repetition penalty.
        capacity: Most tokens of prompt and text together.
        ending_ids: Tokens not drawn before `strategy.min_tokens`.
        logprobs: Give log-probabilities, and those of so many of the most probable tokens.

    Attributes:
        rule: How a token is drawn.
        keys: As given.
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

    def draw(self, logits: mx.array, index: int) -> Draw:
        """Start to draw the new token at this index from logits (1, V)."""
        return self._draw(logits, index, whole=index < self._whole_until)

    def redraw(self, missed: Draw) -> Draw:
        """Draw again from the whole vocabulary, with the same random number."""
        self._whole_until = missed.index + DRAWS_AFTER_A_MISS
        return self._draw(missed.logits, missed.index, whole=True)

    def accept(self, draw: Draw) -> None:
        """Note a draw's token as part of the text, computed or not."""
        if self._history is not None:
            self._history.append(draw.token.astype(mx.uint32))

    def retract(self, count: int) -> None:
        """Take the tokens that were noted last back."""
        if self._history is not None:
            self._history.drop_last(count)

    def _draw(self, logits: mx.array, index: int, *, whole: bool) -> Draw:
        adjusted = self._adjust(logits.astype(mx.float32), index)
        outcome, logprobs = self.rule(logits, adjusted, self.keys.key(index), whole=whole)
        return Draw(logits, index, outcome, logprobs)

    def _adjust(self, logits: mx.array, index: int) -> mx.array:
        if self._history is not None:
            logits = penalize(logits, self.strategy, self._history)
        return add_bias(logits, self._early_bias if index < self.strategy.min_tokens else self._bias)


def sample_token(logits: mx.array, strategy: SamplingStrategy, key: mx.array) -> mx.array:
    """Choose one token per row, without regard to tokens before it.

    Args:
        logits: (R, V) or (V,), of any floating dtype; computed on in float32.
        strategy: Its penalties and `min_tokens` need a text and are left to `generate`.
        key: As `mx.random.key` makes it. A row's draw depends on it and on the row's number.

    Returns:
        (R,) or () token ids.

    Raises:
        UsageError: The strategy's bias names a token beyond V.
        LogitsError: A row has NaN, plus infinity, or nothing but minus infinity; NoTokenLeftError where
            that is the strategy's doing.
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


def no_token(problem: str, logits: mx.array) -> LogitsError:
    """The error of a token that could not be chosen.

    Args:
        problem: What failed.
        logits: As the model gave them; they tell whether it is the model or the strategy that leaves none.
    """
    if mx.isfinite(logits).all().item():
        return NoTokenLeftError(
            f"{problem}: every token of the vocabulary is banned",
            "ban fewer tokens; min_tokens and ignore_eos ban those that end a text",
        )
    return LogitsError(
        f"{problem}: the logits are not finite",
        "the checkpoint may be damaged; try float32 for model and cache",
    )


def draw_once(
    logits: mx.array, strategy: SamplingStrategy, uniform: mx.array, *, whole: bool
) -> tuple[mx.array, mx.array, tuple[mx.array, mx.array | None]]:
    """Draw one token per row.

    Args:
        logits: (R, V) float32, penalties and bias applied.
        strategy: Gives temperature, top-k, top-p and min-p.
        uniform: (R, 1) in [0, 1).
        whole: Look at the whole vocabulary at once.

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
    """How many blocks of candidates to look at first; 0 for the whole vocabulary."""
    if strategy.top_k is not None:
        count = max(FEWEST_BLOCKS, strategy.top_k + 1)
    elif strategy.truncates_by_mass or strategy.min_p:
        count = NUCLEUS_BLOCKS
    else:
        return 0
    too_small = vocabulary <= SMALL_VOCABULARY or count * blocks.BLOCK >= vocabulary
    return 0 if too_small or count > MOST_BLOCKS else count


def bias_arrays(pairs: dict[int, float]) -> tuple[mx.array, mx.array] | None:
    """Token ids and what to add to their logits; None for nothing."""
    if not pairs:
        return None
    return mx.array(list(pairs), dtype=mx.int32), mx.array(list(pairs.values()), dtype=mx.float32)


def add_bias(logits: mx.array, bias: tuple[mx.array, mx.array] | None) -> mx.array:
    """Add to the logits (R, V) of some tokens."""
    if bias is None:
        return logits
    ids, values = bias
    return logits.at[:, ids].add(values)
