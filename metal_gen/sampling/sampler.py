"""Draws the tokens of a text one after another, with explicit keys.

Defines the order of the steps and the state between them: penalties, then bias, then the rule of a draw.

Axes: R rows, V vocabulary.
"""

import math
from collections.abc import Collection, Sequence

import mlx.core as mx

from metal_gen.sampling import blocks
from metal_gen.sampling.allowed import Allowed
from metal_gen.sampling.bias import add_bias, bias_arrays
from metal_gen.sampling.draw_rule import Draw, DrawRule, RuleDraws, Status, draw_once
from metal_gen.sampling.logits_error import no_token
from metal_gen.sampling.penalties import TokenHistory, penalize
from metal_gen.sampling.random_keys import RandomKeys, fold, uniform, words
from metal_gen.sampling.strategy import SamplingStrategy, require_vocabulary

# Draws that search the whole vocabulary at once, after one whose candidates were not enough.
DRAWS_AFTER_A_MISS = 16


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
        early = dict(strategy.logit_bias) | dict.fromkeys(ending_ids, -math.inf)
        self._early_bias = bias_arrays(early)
        self._history = TokenHistory(prompt, capacity + 1) if strategy.has_penalties else None
        self._whole_until = 0

    def follows_rule(self, index: int) -> bool:
        """Return whether the draw at this index follows the rule, after penalties if there are any."""
        return index >= self.strategy.min_tokens

    def searches_whole(self, index: int) -> bool:
        """Return whether the draw at this index searches the whole vocabulary at once."""
        return index < self._whole_until

    def follows_rule_alone(self, index: int) -> bool:
        """Return whether the draw at this index depends on logits and key alone, and in the usual way."""
        return self._history is None and self.follows_rule(index) and not self.searches_whole(index)

    def rule_draws(self, index: int) -> RuleDraws | None:
        """Return the draws from an index on, or None if they do not follow the rule alone."""
        return RuleDraws(self.rule, self.keys.base, index) if self.follows_rule_alone(index) else None

    def draw(self, logits: mx.array, index: int, allowed: Allowed | None = None) -> Draw:
        """Start to draw a new token.

        Args:
            logits: The model's logits, (1, V).
            index: Index of the new token.
            allowed: Tokens to draw from; None for all.
        """
        return self._draw(logits, index, allowed, whole=self.searches_whole(index))

    def redraw(self, missed: Draw) -> Draw:
        """Draw again from the whole vocabulary, with the same random number."""
        self._whole_until = missed.index + 1 + DRAWS_AFTER_A_MISS
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

    def _draw(self, logits: mx.array, index: int, allowed: Allowed | None, *, whole: bool) -> Draw:
        adjusted = self._adjust(logits, index)
        key = self.keys.key(index)
        outcome, logprobs = self.rule.among(logits, adjusted, allowed, key, whole=whole)
        return Draw(logits, index, outcome, logprobs, allowed)

    def penalized(self, logits: mx.array) -> mx.array:
        """Return logits, (1, V), after the penalties of the text so far; without penalties as they are."""
        if self._history is None:
            return logits
        return penalize(logits.astype(mx.float32), self.strategy, self._history)

    def _adjust(self, logits: mx.array, index: int) -> mx.array:
        bias = self._early_bias if index < self.strategy.min_tokens else self.rule.bias
        return add_bias(self.penalized(logits).astype(mx.float32), bias)


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
    rows = DrawRule(strategy, None).adjusted(logits.reshape(-1, logits.shape[-1]))
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
