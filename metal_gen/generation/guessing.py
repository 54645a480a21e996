"""Chooses where guesses come from: the settings, the device and what the checkpoint has decide."""

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.errors import ConfigError, UsageError
from metal_gen.generation.strategy_settings import place_of
from metal_gen.speculation.planned import PlannedSource


def planned_source(settings: Settings, checkpoint: Checkpoint, dtype: str) -> PlannedSource | None:
    """Return the source of guesses that the settings ask for; None to generate without guesses.

    Args:
        settings: Settings in force.
        checkpoint: Checkpoint of the target model.
        dtype: Dtype that the target computes in.

    Raises:
        UsageError: The source cannot be used with this model; ConfigError if a file or variable asks for it.
    """
    wanted = settings.speculate
    if settings.draft_model is not None and wanted not in ("auto", "draft"):
        raise _refusal(
            settings,
            "draft_model",
            f"a draft model contradicts speculate = {wanted!r}",
            "use --speculate draft, or leave the draft model out",
        )
    return None


def _refusal(settings: Settings, name: str, problem: str, hint: str) -> UsageError | ConfigError:
    """Return an error that names the place of a setting."""
    place, refuse = place_of(settings, name)
    return refuse(f"{place}: {problem}", hint)
