"""Shell completion, from the Hub's cache and from the settings.

A shell waits for it at every Tab, so it loads neither MLX nor the Hub's library.
"""

from collections.abc import Callable, Sequence

from metal_gen.config.checks import Choice
from metal_gen.config.quantize import USUAL_PACKINGS
from metal_gen.config.settings import SETTINGS

# Whose scripts `metal-gen completion` prints.
SHELLS = ("bash", "zsh", "fish")
# Typer recognizes its arguments by their types.
Completion = Callable[[str], list[str]]


def without_equals_signs(words: Sequence[str], place: int) -> tuple[list[str], int]:
    """Join `--option=value`, which bash passes as three words, to the two words that it means.

    Args:
        words: Words of the command line.
        place: Index of the word to complete.

    Returns:
        The words without the equals signs, and the new index; a completed equals sign becomes an empty word.
    """
    kept: list[str] = []
    for number, word in enumerate(words[: place + 1]):
        if word == "=" and kept and kept[-1].startswith("--"):
            if number == place:
                kept.append("")
        else:
            kept.append(word)
    return kept, len(kept) - 1


def complete_model(incomplete: str) -> list[str]:
    """Return matching models in the cache; if there are none, a shell completes files and folders."""
    from metal_gen.hub.cache import cached_references

    return [reference for reference in cached_references() if reference.startswith(incomplete)]


def completion_of(setting: str) -> Completion | None:
    """Return the completion of a setting's values; None if it has none."""
    if setting in ("model", "draft_model"):
        return complete_model
    if setting == "quantize":
        return completion_from(USUAL_PACKINGS)
    check = SETTINGS[setting].check
    if not isinstance(check, Choice):
        return None
    return completion_from(check.words)


def completion_from(words: Sequence[str]) -> Completion:
    """Return the completion of a value that is one of some words."""

    def complete_word(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete_word


def completion_of_list(words: Sequence[str]) -> Completion:
    """Return the completion of a value that is a list of words with commas between them."""

    def complete_last(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{word}" for word in words if word.startswith(last)]

    return complete_last
