"""Makes a sampling strategy of settings, which name tokens by their text."""

import math
from collections.abc import Collection, Iterable
from dataclasses import replace

from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.sources import place_of
from metal_gen.engine.stopping import FinishDetail
from metal_gen.errors import ConfigError, UsageError
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.text.token_names import token_id
from metal_gen.text.tokenizer import Tokenizer

DRAWN = ("temperature", "top_k", "top_p", "min_p")
PLAIN = (
    *DRAWN,
    "repetition_penalty",
    "repetition_window",
    "presence_penalty",
    "frequency_penalty",
    "min_tokens",
)
STRATEGY_SETTINGS = (*PLAIN, "logit_bias", "ban_token")


def require_text_settings(names: Iterable[str]) -> None:
    """Refuse settings that cannot be set for a single text.

    Raises:
        UsageError: A setting applies to the loaded model. The error names it.
    """
    for name in names:
        if SETTINGS[name].section not in ("sampling", "generation"):
            raise UsageError(f"{name} is set when a model is loaded", f"pass it to load(..., {name}=...)")


def strategy_from(settings: Settings, tokenizer: Tokenizer, eos_ids: Collection[int]) -> SamplingStrategy:
    """Return the strategy in force: greedy unless a temperature, top-k, top-p or min-p is set.

    Raises:
        UsageError: A named token does not exist, or `require_lengths` refuses the settings; ConfigError
            if a file or variable is at fault.
    """
    require_lengths(settings)
    bias = {_token(settings, "logit_bias", tokenizer, name): value for name, value in settings.logit_bias}
    bias |= dict.fromkeys(
        (_token(settings, "ban_token", tokenizer, name) for name in settings.ban_token), -math.inf
    )
    strategy = replace(_plain_strategy(settings), logit_bias=bias)
    if not settings.ignore_eos:
        return strategy
    wanted = {_token(settings, "stop_token", tokenizer, name) for name in settings.stop_token}
    return without_end(strategy, set(eos_ids) - wanted)


def is_greedy(settings: Settings) -> bool:
    """Return whether decoding is greedy, so that several texts for one prompt are equal."""
    return _plain_strategy(settings).is_greedy


def _plain_strategy(settings: Settings) -> SamplingStrategy:
    """Return the strategy without the settings that name tokens."""
    values = {name: getattr(settings, name) for name in PLAIN}
    if settings.temperature is None:
        values["temperature"] = 0.0 if all(values[name] is None for name in DRAWN) else 1.0
    return SamplingStrategy(**values)


def require_lengths(settings: Settings) -> None:
    """Refuse a minimum length above the maximum length.

    Raises:
        UsageError: `min_tokens` is above `max_tokens`; ConfigError if neither is an argument.
    """
    if settings.max_tokens is None or settings.min_tokens <= settings.max_tokens:
        return
    least, most = place_of(settings, "min_tokens"), place_of(settings, "max_tokens")
    refuse = UsageError if UsageError in (least[1], most[1]) else ConfigError
    raise refuse(
        f"{least[0]} {settings.min_tokens} is above {most[0]} {settings.max_tokens}",
        "lower min_tokens, or raise max_tokens",
    )


def endings_from(
    settings: Settings, tokenizer: Tokenizer, eos_ids: Collection[int]
) -> dict[int, FinishDetail]:
    """Return the tokens that end a text, with the reason for each.

    Raises:
        UsageError: A named stop token does not exist.
    """
    endings = dict.fromkeys(eos_ids, FinishDetail.EOS)
    for name in settings.stop_token:
        endings[_token(settings, "stop_token", tokenizer, name)] = FinishDetail.STOP_TOKEN
    return endings


def _token(settings: Settings, setting: str, tokenizer: Tokenizer, name: str) -> int:
    """Find a token that a setting names. The error says where it was set."""
    try:
        return token_id(tokenizer, name)
    except UsageError as error:
        place, refuse = place_of(settings, setting)
        raise refuse(f"{place}: {error.message}", error.hint) from None


def without_end(strategy: SamplingStrategy, eos_ids: Collection[int]) -> SamplingStrategy:
    """Return the same strategy, but without end tokens."""
    bias = {**dict(strategy.logit_bias), **dict.fromkeys(eos_ids, -math.inf)}
    return replace(strategy, logit_bias=bias)
