"""What the shell can complete, from the Hub's cache and from the settings.

A shell waits for this at every press of a key: it loads neither MLX nor the Hub's library.
"""

from collections.abc import Callable, Sequence

from metal_gen.config.checks import Choice
from metal_gen.config.settings import SETTINGS

# Typer tells its arguments apart by their types.
Completion = Callable[[str], list[str]]


def without_equals_signs(words: Sequence[str], place: int) -> tuple[list[str], int]:
    """Take `--option=value`, which bash hands over as three words, for the two that it means.

    Args:
        words: Of the command line.
        place: Which of them is to be completed.

    Returns:
        The same without the equals signs; where one is to be completed, it is an empty word.
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
    """Name the models in the cache; where none fits, a shell completes files and folders."""
    from metal_gen.hub.cache import cached_references

    return [reference for reference in cached_references() if reference.startswith(incomplete)]


def completion_of(setting: str) -> Completion | None:
    """How the values of a setting are completed; None where they are not."""
    if setting == "model":
        return complete_model
    check = SETTINGS[setting].check
    if not isinstance(check, Choice):
        return None
    words = check.words

    def complete_word(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete_word
