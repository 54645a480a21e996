"""The score of a text: how probable its tokens are to a model."""

import math
from array import array
from dataclasses import dataclass, field

from metal_gen.engine.scoring.scorer import ScoreRequest
from metal_gen.sampling.logits_error import LogitsError


@dataclass(frozen=True)
class TextScore:
    """How probable a text is to a model.

    Attributes:
        tokens: Number of tokens that were scored: all but the first, if nothing comes before it.
        logprob: Sum of their log-probabilities (natural logarithm).
        nbytes: Size in UTF-8 of the text that these tokens stand for.
        prompt_tokens: Number of tokens of the prompt before the text; 0 without a prompt.
        windows: Number of windows that the text was cut into.
        token_ids: The tokens that were scored, if requested.
        logprobs: Their log-probabilities.
    """

    tokens: int
    logprob: float
    nbytes: int
    prompt_tokens: int = 0
    windows: int = 1
    token_ids: "array[int]" = field(default_factory=lambda: array("l"), repr=False)
    logprobs: "array[float]" = field(default_factory=lambda: array("d"), repr=False)

    @property
    def logprob_per_token(self) -> float:
        """Mean log-probability of a token."""
        return self.logprob / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(-logprob_per_token); infinity if it is too large for a float."""
        try:
            return math.exp(-self.logprob_per_token)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """Bits that a byte of the text takes if it is encoded with the model; None if there are no bytes."""
        return -self.logprob / math.log(2) / self.nbytes if self.nbytes else None


class ScoreSum:
    """Adds up the requests of one text.

    Args:
        keeps_tokens: Keep every token and its log-probability.
    """

    def __init__(self, *, keeps_tokens: bool = False) -> None:
        self._keeps_tokens = keeps_tokens
        self._tokens = self._windows = 0
        self._logprob = 0.0
        self._ids: array[int] = array("l")
        self._logprobs: array[float] = array("d")

    @property
    def tokens(self) -> int:
        """Number of tokens so far."""
        return self._tokens

    def add(self, request: ScoreRequest) -> None:
        """Add a complete request; requests come in the order of the text.

        Raises:
            LogitsError: A log-probability is not a number.
        """
        logprob = finite_sum(request)
        self._windows += 1
        self._tokens += len(request.targets)
        self._logprob += logprob
        if self._keeps_tokens:
            self._ids.extend(request.targets)
            self._logprobs.extend(request.logprobs)

    def score(self, nbytes: int, *, prompt_tokens: int = 0) -> TextScore:
        """Return the score of the text; arguments as the attributes of `TextScore`."""
        return TextScore(
            self._tokens, self._logprob, nbytes, prompt_tokens, self._windows, self._ids, self._logprobs
        )


def finite_sum(request: ScoreRequest) -> float:
    """Return the sum of a request's log-probabilities.

    Raises:
        LogitsError: It is not finite.
    """
    total = sum(request.logprobs)
    if not math.isfinite(total):
        raise LogitsError(
            "the text cannot be scored: the model's logits are not finite",
            "if the model computes in float16, try --model-dtype float32",
        )
    return total
