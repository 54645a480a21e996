"""The setting for adapters: folders, each with an optional scale."""

from dataclasses import dataclass

from metal_gen.config.checks import Check, Real, Texts
from metal_gen.errors import ConfigError

SCALE = Real(-100.0, 100.0)
_TEXTS = Texts()


class AdaptersError(ConfigError):
    """The folders show that the list of adapters is wrong. The place where it is set is not known yet."""


@dataclass(frozen=True)
class Adapters(Check):
    """A list of `FOLDER` and `FOLDER=SCALE`."""

    def __call__(self, value: object) -> tuple[str, ...]:
        """Accept a list of texts, or one text."""
        try:
            texts = _TEXTS([value] if isinstance(value, str) else value)
            for text in texts:
                split_scale(text)
        except ValueError:
            raise ValueError(f"must be {self}") from None
        return texts

    def from_text(self, text: str) -> tuple[str, ...]:
        """Read a JSON list, or take the text as the only adapter."""
        try:
            texts = _TEXTS.from_text(text)
        except ValueError:
            raise ValueError(f"must be {self}, written as JSON") from None
        return self(texts)

    def from_texts(self, texts: list[str]) -> tuple[str, ...]:
        """Take each text as one adapter."""
        return self(texts)

    def __str__(self) -> str:
        return f"a list of adapters, each FOLDER or FOLDER=SCALE with {SCALE}"


def split_scale(text: str) -> tuple[str, float]:
    """Split off the scale, which is 1 if none is given.

    The part after the last `=` is the scale if it is a number.

    Raises:
        ValueError: The scale is out of range, or the folder is missing.
    """
    folder, _, scale = text.rpartition("=")
    number = _number(scale) if folder or text.startswith("=") else None
    if number is None:
        return text, 1.0
    if not folder.strip():
        raise ValueError("has no folder")
    return folder, SCALE(number)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
