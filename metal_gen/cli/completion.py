"""What the shell can complete, from the Hub's cache and from the settings.

A shell waits for this at every press of a key: it loads neither MLX nor the Hub's library.
"""

from collections.abc import Callable

from metal_gen.config.checks import Choice
from metal_gen.config.settings import SETTINGS

# Typer tells its arguments apart by their types.
Completion = Callable[[str], list[str]]


def complete_model(incomplete: str) -> list[str]:
    """Name the models in the cache; where none fits, a shell completes files and folders."""
    from metal_gen.checkpoint.hub_cache import cached_references

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
