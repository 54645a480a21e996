"""The setting for variables of the chat template: names with JSON values."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from metal_gen.config.checks import SURROGATES, Check

TemplateArgsValue = tuple[tuple[str, object], ...]
# Set by metal-gen itself for every template.
TAKEN = ("messages", "add_generation_prompt")
DEEPEST = 100
LARGEST = 2**64


@dataclass(frozen=True)
class TemplateArgs(Check):
    """Variables by name."""

    def __call__(self, value: object) -> TemplateArgsValue:
        """Accept a mapping, or pairs."""
        try:
            arguments: dict[object, object] = dict(value)  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise ValueError(f"must be {self}") from None
        for name, given in arguments.items():
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"must be {self}; a name is a word of letters, digits and _")
            if name in TAKEN:
                raise ValueError(f"cannot set {name}, which every chat template is given")
            _require_json(given)
        return tuple((str(name), given) for name, given in arguments.items())

    def from_text(self, text: str) -> TemplateArgsValue:
        """Parse a JSON object, or `NAME=VALUE`."""
        return self.from_texts([text])

    def from_texts(self, texts: list[str]) -> TemplateArgsValue:
        """Parse several `NAME=VALUE` or JSON objects; for a repeated name the last one counts.

        A value that is not JSON is a text.
        """
        arguments: dict[object, object] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if isinstance(table := _json_or_text(text), Mapping):
                arguments |= table
            elif equals:
                arguments[name.strip()] = _json_or_text(value)
            else:
                raise ValueError("must be NAME=VALUE")
        return self(arguments)

    def __str__(self) -> str:
        return "a table of names, each with a value that JSON can hold"


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _require_json(value: object) -> None:
    """Check that a value can be written as JSON."""
    level = [value]
    for _ in range(DEEPEST):
        below: list[object] = []
        for each in level:
            if isinstance(each, Mapping):
                below += [*each, *each.values()]
                if not all(isinstance(name, str) for name in each):
                    raise ValueError("must have texts as names within a value")
            elif isinstance(each, list | tuple):
                below += each
            elif not _is_plain(each):
                raise ValueError("must have values that JSON can hold")
        if not below:
            return
        level = below
    raise ValueError(f"must have values of at most {DEEPEST} levels")


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return not SURROGATES.search(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) < LARGEST)
