"""The setting that names adapters: folders, each with a factor."""

from dataclasses import dataclass

from metal_gen.config.checks import Check, Real, Texts

SCALE = Real(-100.0, 100.0)
_TEXTS = Texts()


@dataclass(frozen=True)
class Adapters(Check):
    """A list of `FOLDER` and `FOLDER=SCALE`."""

    def __call__(self, value: object) -> tuple[str, ...]:
        """Accept a list of texts, or one."""
        try:
            texts = _TEXTS([value] if isinstance(value, str) else value)
            for text in texts:
                split_scale(text)
        except ValueError:
            raise ValueError(f"must be {self}") from None
        return texts

    def from_text(self, text: str) -> tuple[str, ...]:
        """Read a JSON list, or take the text as the only one."""
        try:
            texts = _TEXTS.from_text(text)
        except ValueError:
            raise ValueError(f"must be {self}, written as JSON") from None
        return self(texts)

    def from_texts(self, texts: list[str]) -> tuple[str, ...]:
        """Take each as it is."""
        return self(texts)

    def __str__(self) -> str:
        return f"a list of adapters, each FOLDER or FOLDER=SCALE with {SCALE}"


def split_scale(text: str) -> tuple[str, float]:
    """Part the folder and the factor, which is 1 where none is given.

    What comes after the last `=` is the factor if it is a number at all.

    Raises:
        ValueError: The factor is out of its range, or there is no folder.
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
