"""Defines sampling strategies: validated parameters, without any computation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from metal_gen.config.checks import Check, with_value
from metal_gen.config.ranges import (
    BIAS,
    MIN_P,
    MIN_TOKENS,
    PENALTY,
    REPETITION_PENALTY,
    REPETITION_WINDOW,
    TEMPERATURE,
    TOKEN_ID,
    TOP_K,
    TOP_P,
)
from metal_gen.config.switched import value_in_force
from metal_gen.errors import UsageError

# Dividing float32 logits by less than this overflows or leaves one token certain.
LOWEST_TEMPERATURE = 1e-9


@dataclass(frozen=True, kw_only=True)
class SamplingStrategy:
    """How to choose a token from logits.

    Steps are applied in this order: penalties, bias, what a constraint allows, temperature, top-k, top-p,
    min-p, draw.

    Args:
        temperature: Divisor of the logits. 0, or a value below 1e-9, takes the most probable token and
            disables the later steps.
        top_k: Keep the k most probable tokens; None, 0, -1, or k beyond the vocabulary keeps all.
        top_p: Keep the smallest set of most probable tokens whose total probability reaches p,
            including the token that crosses p (nucleus sampling, arXiv 1904.09751); None or 1 keeps all.
            With top-k, probabilities are those among the k.
        min_p: Keep tokens at least this many times as probable as the most probable one
            (arXiv 2407.01082); None or 0 keeps all.
        repetition_penalty: Divisor of positive logits and factor of negative ones, for tokens that occurred
            in the prompt or since, once per distinct token (arXiv 1909.05858); 1 disables it.
        repetition_window: Number of last tokens that `repetition_penalty` covers; None or -1 covers all.
        presence_penalty: Value subtracted from the logit of each token generated before.
        frequency_penalty: Value subtracted for each time that the token was generated.
        logit_bias: Values to add to the logits of these token ids; minus infinity bans a token. A
            mapping, or pairs.
        min_tokens: Number of tokens before which tokens that end a text are not drawn.

    Raises:
        UsageError: A value is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    repetition_window: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), check))
        try:
            pairs = dict(self.logit_bias)
        except (TypeError, ValueError):
            raise UsageError(f"logit_bias must map token ids to numbers: {self.logit_bias!r}") from None
        for token, bias in pairs.items():
            _checked("logit_bias token", token, TOKEN_ID)
            if bias != -math.inf:
                _checked(f"logit_bias of token {token}", bias, BIAS)
        object.__setattr__(self, "logit_bias", tuple(sorted(pairs.items())))

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature < LOWEST_TEMPERATURE or self.top_k == 1

    @property
    def truncates_by_mass(self) -> bool:
        """Whether top-p removes any tokens."""
        return self.top_p is not None and self.top_p < 1

    @property
    def has_penalties(self) -> bool:
        """Whether a draw depends on the tokens before it."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0

    def __str__(self) -> str:
        """Describe the steps that have an effect, in order."""
        idle = {field.name: field.default for field in fields(self)}
        parts = ["greedy" if self.is_greedy else f"temperature {self.temperature:g}"]
        for name in ("top_k", "top_p", "min_p"):
            value = getattr(self, name)
            if value not in _WITHOUT_EFFECT[name] and not self.is_greedy:
                parts.append(f"{name.replace('_', '-')} {_number(value)}")
        for name in _ALWAYS_SHOWN:
            value = getattr(self, name)
            is_idle = value == idle[name] or (name == "repetition_window" and self.repetition_penalty == 1)
            if not is_idle:
                parts.append(f"{name.replace('_', ' ')} {_number(value)}")
        if self.logit_bias:
            parts.append(f"bias on {len(self.logit_bias)} tokens")
        return ", ".join(parts)


_CHECKS: dict[str, Check] = {
    "temperature": TEMPERATURE,
    "top_k": TOP_K,
    "top_p": TOP_P,
    "min_p": MIN_P,
    "repetition_penalty": REPETITION_PENALTY,
    "repetition_window": REPETITION_WINDOW,
    "presence_penalty": PENALTY,
    "frequency_penalty": PENALTY,
    "min_tokens": MIN_TOKENS,
}
_OPTIONAL = ("top_k", "top_p", "min_p", "repetition_window")
# Values that remove no tokens.
_WITHOUT_EFFECT: dict[str, tuple[float | None, ...]] = {
    "top_k": (None,),
    "top_p": (None, 1),
    "min_p": (None, 0),
}
_ALWAYS_SHOWN = (
    "repetition_penalty",
    "repetition_window",
    "presence_penalty",
    "frequency_penalty",
    "min_tokens",
)


def Greedy() -> SamplingStrategy:
    """Always take the most probable token. Of equally probable ones, take the lowest id."""
    return SamplingStrategy(temperature=0.0)


def Temperature(temperature: float) -> SamplingStrategy:
    """Draw from the whole vocabulary, sharper below 1 and flatter above."""
    return SamplingStrategy(temperature=temperature)


def TopK(top_k: int, *, temperature: float = 1.0) -> SamplingStrategy:
    """Draw from the k most probable tokens: 10 is focused, 50 a good middle, 100 diverse."""
    return SamplingStrategy(temperature=temperature, top_k=top_k)


def TopP(top_p: float, *, temperature: float = 1.0) -> SamplingStrategy:
    """Draw from the nucleus: 0.8 is focused, 0.9 a good middle, 0.95 diverse."""
    return SamplingStrategy(temperature=temperature, top_p=top_p)


def require_vocabulary(strategy: SamplingStrategy, vocab_size: int) -> None:
    """Refuse a bias on a token that the model does not have.

    Raises:
        UsageError: A token is beyond the vocabulary. The error names its id.
    """
    for token in dict(strategy.logit_bias):
        if token >= vocab_size:
            raise UsageError(f"logit_bias names token {token}, and the vocabulary ends at {vocab_size - 1}")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _checked(name: str, value: object, check: Check) -> object:
    """Return the value as the sampler takes it; None disables the step."""
    if value is None and name in _OPTIONAL:
        return None
    try:
        return value_in_force(check, check(value))
    except ValueError as error:
        raise UsageError(f"{name} {with_value(error, str(value))}") from None
