"""Chooses where guesses come from: the settings, the device and what the checkpoint has decide."""

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.config.sources import refusal
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
        raise refusal(
            settings,
            "draft_model",
            f"a draft model contradicts speculate = {wanted!r}",
            "use --speculate draft, or leave the draft model out",
        )
    if wanted == "draft" or settings.draft_model is not None:
        from metal_gen.speculation.planning import plan_draft

        return plan_draft(settings, checkpoint)
    if wanted == "mtp":
        from metal_gen.speculation.planning import plan_mtp

        return plan_mtp(settings, checkpoint, dtype)
    return None
