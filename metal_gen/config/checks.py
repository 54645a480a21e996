"""The types of setting values, with their ranges.

One check serves the flag, the environment variable, the TOML key and the library's argument. Each raises
`ValueError` with a phrase that completes "NAME ...".
"""

import json
import math
import re
from dataclasses import dataclass
from typing import ClassVar, Protocol

SURROGATES = re.compile("[\ud800-\udfff]")
# Bound of whole numbers without another one: beyond any count of tokens or bytes, and short when written.
LARGEST = 2**63 - 1


class Check(Protocol):
    """Accepts a value, or raises an error that says what it must be.

    Attributes:
        topic: The topic of `metal-gen help` that shows how to write a value; empty where that needs none.
    """

    topic: ClassVar[str] = ""

    def __call__(self, value: object) -> object:
        """Return the value in the setting's own type.

        Raises:
            ValueError: The value is invalid; the phrase is like "must be a whole number of at least 1".
        """
        ...

    def from_text(self, text: str) -> object:
        """Parse the text of an environment variable."""
        ...

    def from_texts(self, texts: list[str]) -> object:
        """Parse an option that is given several times; by default the last one counts."""
        return self.from_text(texts[-1])

    def from_file_value(self, value: object) -> object:
        """Return the value of a settings file, which may name a file where an option may."""
        return self(value)


class RefusedError(ValueError):
    """A value that is refused, with a hint of its own."""

    def __init__(self, phrase: str, hint: str) -> None:
        super().__init__(phrase)
        self.hint = hint


def with_value(error: ValueError, shown: str) -> str:
    """Return the phrase of a refused value, with the value: "must be a number above 0, not -1"."""
    phrase = str(error)
    return f"{phrase}, not {shown}" if phrase.startswith("must be ") else f"{phrase}: {shown}"


@dataclass(frozen=True)
class Whole(Check):
    """A whole number between inclusive bounds."""

    minimum: int
    maximum: int = LARGEST

    def __call__(self, value: object) -> int:
        """Accept an int, but not a bool."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be {self}")
        if value > LARGEST == self.maximum:
            raise ValueError(f"must be at most {LARGEST}")
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"must be {self}")
        return value

    def from_text(self, text: str) -> int:
        """Parse decimal digits; underscores may group them."""
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"must be {self}") from None
        return self(value)

    def __str__(self) -> str:
        if self.maximum == LARGEST:
            return f"a whole number of at least {self.minimum}"
        return f"a whole number from {self.minimum} to {self.maximum}"


@dataclass(frozen=True)
class Real(Check):
    """A finite number within bounds."""

    minimum: float
    maximum: float | None = None
    above: bool = False

    def __call__(self, value: object) -> float:
        """Accept an int or a float, but neither infinity nor NaN."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be {self}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        low = number <= self.minimum if self.above else number < self.minimum
        if low or not math.isfinite(number) or (self.maximum is not None and number > self.maximum):
            raise ValueError(f"must be {self}")
        return number

    def from_text(self, text: str) -> float:
        """Parse a decimal number."""
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"must be {self}") from None
        return self(value)

    def __str__(self) -> str:
        low = f"above {self.minimum:g}" if self.above else f"of at least {self.minimum:g}"
        return f"a number {low}" + (f" and at most {self.maximum:g}" if self.maximum is not None else "")


@dataclass(frozen=True)
class Text(Check):
    """A text, optionally required not to be empty."""

    may_be_empty: bool = True

    def __call__(self, value: object) -> str:
        """Accept a str."""
        if not isinstance(value, str) or not (value.strip() or self.may_be_empty):
            raise ValueError(f"must be {self}")
        return value

    def from_text(self, text: str) -> str:
        """Take the text unchanged."""
        return self(text)

    def __str__(self) -> str:
        return "a text" if self.may_be_empty else "a text that is not empty"


@dataclass(frozen=True)
class Choice(Check):
    """One of a few words."""

    words: tuple[str, ...]

    def __call__(self, value: object) -> str:
        """Accept one of the words, spelled exactly."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(f"must be {self}")
        return value

    def from_text(self, text: str) -> str:
        """Take the text unchanged."""
        return self(text)

    def __str__(self) -> str:
        *others, last = self.words
        return f"{', '.join(others)} or {last}" if others else last


@dataclass(frozen=True)
class Flag(Check):
    """True or false."""

    def __call__(self, value: object) -> bool:
        """Accept a bool."""
        if not isinstance(value, bool):
            raise ValueError(f"must be {self}")
        return value

    def from_text(self, text: str) -> bool:
        """Parse true, yes, on, 1 and their opposites."""
        word = text.strip().lower()
        if word in ("true", "yes", "on", "1"):
            return True
        if word in ("false", "no", "off", "0"):
            return False
        raise ValueError(f"must be {self}")

    def __str__(self) -> str:
        return "true or false"


def _is_text(value: object) -> bool:
    """Return whether the value is a text that is not empty and has no unpaired surrogates."""
    return isinstance(value, str) and bool(value) and not SURROGATES.search(value)


@dataclass(frozen=True)
class Texts(Check):
    """A list of texts, none of them empty."""

    most: int = 4096

    def __call__(self, value: object) -> tuple[str, ...]:
        """Accept a list or tuple of str."""
        if not isinstance(value, list | tuple) or not all(_is_text(text) for text in value):
            raise ValueError(f"must be {self}")
        if len(value) > self.most:
            raise ValueError(f"must be {self}, and there are {len(value):,}")
        return tuple(value)

    def from_text(self, text: str) -> tuple[str, ...]:
        """Parse a JSON list, or take the text as the only element."""
        if text.lstrip().startswith("["):
            try:
                return self(json.loads(text))
            except (ValueError, RecursionError):
                raise ValueError(f"must be {self}, written as JSON") from None
        return self([text])

    def from_texts(self, texts: list[str]) -> tuple[str, ...]:
        """Take each text as one element."""
        if not all(texts):
            raise ValueError("must not be empty")
        return self(texts)

    def __str__(self) -> str:
        return f"a list of at most {self.most:,} texts, none of them empty"


@dataclass(frozen=True)
class Biases(Check):
    """A number for each of some tokens, which are given by their text or id."""

    bias: "Real"

    def __call__(self, value: object) -> tuple[tuple[str, float], ...]:
        """Accept a mapping, or pairs."""
        try:
            pairs = dict(value)  # type: ignore[call-overload]
            if not all(_is_text(name) for name in pairs):
                raise ValueError
            return tuple((name, self.bias(bias)) for name, bias in pairs.items())
        except (TypeError, ValueError):
            raise ValueError(f"must be {self}") from None

    def from_text(self, text: str) -> tuple[tuple[str, float], ...]:
        """Parse a JSON object, or `TOKEN=BIAS`."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self.from_texts([text])
        return self(value)

    def from_texts(self, texts: list[str]) -> tuple[tuple[str, float], ...]:
        """Parse several `TOKEN=BIAS`; for a repeated token the last one counts."""
        try:
            parts = [text.rpartition("=") for text in texts]
            return self({name: float(bias) for name, _, bias in parts})
        except ValueError:
            raise ValueError(f"must be TOKEN=BIAS, with {self.bias}") from None

    def __str__(self) -> str:
        return f"a table of tokens, each with {self.bias}"
