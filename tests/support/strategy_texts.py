"""Writes a sampling strategy as settings: TOML, and flags."""

import json
import math

from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.generation.strategy_settings import PLAIN
from metal_gen.sampling.strategy import SamplingStrategy


def to_settings(strategy: SamplingStrategy) -> dict[str, object]:
    """Return the settings for this strategy, with tokens named by their ids."""
    values: dict[str, object] = {}
    for name in PLAIN:
        value = getattr(strategy, name)
        if name == "temperature" or value != getattr(Settings(), name):
            values[name] = value
    pairs = dict(strategy.logit_bias)
    if banned := tuple(str(token) for token, bias in pairs.items() if bias == -math.inf):
        values["ban_token"] = banned
    if biased := tuple((str(token), bias) for token, bias in pairs.items() if bias != -math.inf):
        values["logit_bias"] = biased
    return values


def to_toml(strategy: SamplingStrategy) -> str:
    """Return the TOML for this strategy."""
    tables: dict[str, list[str]] = {}
    for name, value in to_settings(strategy).items():
        info = SETTINGS[name]
        tables.setdefault(info.section, []).append(f"{info.key} = {_toml_value(name, value)}")
    return "\n".join(line for section, lines in tables.items() for line in (f"[{section}]", *lines)) + "\n"


def to_flags(strategy: SamplingStrategy) -> list[str]:
    """Return the command-line options for this strategy."""
    flags = []
    for name, value in to_settings(strategy).items():
        flag = SETTINGS[name].flag
        if name == "logit_bias" and isinstance(value, tuple):
            flags += [part for token, bias in value for part in (flag, f"{token}={bias!r}")]
        elif isinstance(value, tuple):
            flags += [part for text in value for part in (flag, text)]
        else:
            flags += [flag, repr(value)]
    return flags


def _toml_value(name: str, value: object) -> str:
    if name == "logit_bias" and isinstance(value, tuple):
        return "{ " + ", ".join(f"{json.dumps(token)} = {bias!r}" for token, bias in value) + " }"
    if isinstance(value, tuple):
        return json.dumps(list(value))
    return repr(value)
