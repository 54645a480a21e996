"""Chooses where guesses come from: the settings, the device and what the checkpoint has decide."""

from pathlib import Path
from typing import TYPE_CHECKING

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.parts.speculation import WITH_DRAFT
from metal_gen.config.settings import Settings
from metal_gen.config.sources import refusal
from metal_gen.device.backend import runs_on_cpu
from metal_gen.hub.locate import ProgressCallback
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.transformer import Transformer
from metal_gen.speculation.planned import PlannedSource

if TYPE_CHECKING:
    from metal_gen.generation.memory.plan import MemoryPlan
    from metal_gen.speculation.speculation import Speculation

# On a CPU, a hybrid keeps its states after each guess, which take much memory.
MOST_GUESSES_WITH_STATES = 4


def planned_source(
    settings: Settings,
    checkpoint: Checkpoint,
    dtype: str,
    *,
    draft_folder: Path | None = None,
    on_download: ProgressCallback | None = None,
) -> PlannedSource | None:
    """Return the source of guesses that the settings ask for; None to generate without guesses.

    Args:
        settings: Settings in force.
        checkpoint: Checkpoint of the target model.
        dtype: Dtype that the target computes in.
        draft_folder: Folder with the headers of the draft model; None to find it.
        on_download: Called while files of the draft model come from the Hub.

    Raises:
        UsageError: The source cannot be used with this model; ConfigError if a file or variable asks for it.
        MetalGenError: The draft model cannot be used. The error names the setting.
    """
    wanted = settings.speculate
    if settings.draft_model is not None and wanted not in WITH_DRAFT:
        raise refusal(
            settings,
            "draft_model",
            f"a draft model contradicts speculate = {wanted!r}",
            "use --speculate draft, or leave the draft model out",
        )
    if wanted == "off" and settings.draft_tokens is not None:
        raise refusal(
            settings,
            "draft_tokens",
            "a number of guesses contradicts speculate = 'off'",
            "choose where guesses come from, as --speculate lookup does, or leave the number out",
        )
    if wanted == "off":
        return None
    if wanted == "draft" or settings.draft_model is not None:
        from metal_gen.speculation.planning import plan_draft

        return plan_draft(settings, checkpoint, folder=draft_folder, on_download=on_download)
    if wanted == "auto" and runs_on_cpu():
        return None

    from metal_gen.speculation.lookup import PlannedLookup

    lookup = PlannedLookup(settings.draft_tokens)
    if wanted == "lookup":
        return lookup

    from metal_gen.speculation.planning import plan_mtp
    from metal_gen.speculation.together import PlannedTogether

    mtp = plan_mtp(settings, checkpoint, dtype)
    return mtp if mtp is None or wanted == "mtp" else PlannedTogether((lookup, mtp))


def why_no_guesses(settings: Settings, plan: "MemoryPlan", most_slots: int) -> str | None:
    """Return why a run makes no guesses although it could; None if it does.

    Args:
        settings: Settings in force.
        plan: Memory plan of the run.
        most_slots: Number of texts to generate at once, as for `prepare`; above 1 in a batch.
    """
    if (count := plan.cache.batch_size) > 1:
        return f"{count} texts at once share each pass already; --batch-size 1 generates one at a time"
    if settings.speculate == "auto" and settings.draft_model is None and not plan.fits:
        return "memory has no room for them"
    if most_slots == 1:
        return None
    if runs_on_cpu():
        # `with_independent_rows` computes a batch; a decoder with guesses has no row rules.
        return (
            "on a CPU, a batch rounds logits alike with any number of slots; the passes of a single text, "
            "which verify guesses, may round the last bits in another way"
        )
    return "the prefix cache is on, which reads and writes slots" if settings.prefix_cache else None


def guesses_notices(settings: Settings, why_off: str | None) -> list[str]:
    """Return the notices to a user who asks for guesses, where there are none.

    Args:
        settings: Settings in force.
        why_off: As `why_no_guesses` returns it.
    """
    if settings.speculate != "auto" or settings.draft_model is not None:
        return [] if why_off is None else [f"no tokens are guessed ahead: {why_off}"]
    if settings.draft_tokens is None:
        return []
    if why_off is None and runs_on_cpu():
        why_off = "speculate = 'auto' guesses on a GPU only"
    source = settings.source("draft_tokens")
    return [] if why_off is None else [f"draft_tokens has no effect ({source}): {why_off}"]


def most_guesses(planned: PlannedSource, model: ModelConfig) -> int:
    """Return how many guesses a pass may have."""
    most = planned.memory.most_guesses
    return min(most, MOST_GUESSES_WITH_STATES) if runs_on_cpu() and model.linear is not None else most


def load_speculation(
    planned: PlannedSource,
    checkpoint: Checkpoint,
    settings: Settings,
    plan: "MemoryPlan",
    target: Transformer,
) -> "Speculation":
    """Read the weights of a source of guesses, and allocate what it needs beside the cache.

    Depths adapt on a GPU alone: on a CPU, where guesses save no time, the best would be none.
    """
    from metal_gen.speculation.speculation import Speculation

    source = planned.load(target, plan.cache.max_seq_len, ahead_bytes=plan.ahead_bytes)
    most = most_guesses(planned, target.config)
    if runs_on_cpu():
        from metal_gen.speculation.depth import Depths

        return Speculation(source, Depths(most, settings.draft_tokens))

    from metal_gen.prefix_cache.keys import model_key
    from metal_gen.speculation.learned import KeptDepths

    key = model_key(checkpoint, plan.dtype, plan.cache, plan.chunk_size)
    name = f"{key} {source.name} {settings.draft_model or ''} {settings.compile}"
    return Speculation(source, KeptDepths(name, most, settings.draft_tokens))
