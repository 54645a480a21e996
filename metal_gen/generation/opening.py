"""Opens a checkpoint with the settings that change it, and completes the settings with its own."""

from pathlib import Path

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.generation_defaults import sampling_defaults
from metal_gen.checkpoint.packed.quantizing import packing_named
from metal_gen.config.adapters import AdaptersError
from metal_gen.config.settings import Settings
from metal_gen.config.sources import refusal
from metal_gen.generation.guides.making import require_constraint
from metal_gen.generation.strategy_settings import endings_from, require_lengths, strategy_from


def open_checkpoint(folder: Path, settings: Settings) -> Checkpoint:
    """Read the headers of a checkpoint and apply the settings that change it.

    Raises:
        CheckpointError: The checkpoint is damaged or not supported.
        ConfigError: A setting contradicts the checkpoint, or the list of adapters is wrong; UsageError if an
            argument has that list.
    """
    packing = None if settings.quantize is None else packing_named(settings.quantize)
    try:
        return Checkpoint(
            folder, rope_scaling=settings.rope_scaling or (), adapters=settings.adapter, packing=packing
        )
    except AdaptersError as error:
        raise refusal(settings, "adapter", error.message, error.hint) from None


def completed(settings: Settings, checkpoint: Checkpoint) -> Settings:
    """Return the settings with the checkpoint's own defaults for sampling, and check them against it.

    Raises:
        ConfigError: A setting contradicts the checkpoint, or names a token that it does not have; UsageError
            if an argument does.
    """
    source = checkpoint.generation_source
    defaults = sampling_defaults(checkpoint.generation_config, settings.sources, source)
    settings = settings.fill(defaults, source)
    require_lengths(settings)
    require_constraint(settings, checkpoint)
    if settings.logit_bias or settings.ban_token or settings.stop_token:
        strategy_from(settings, checkpoint.tokenizer, checkpoint.eos_ids)
        endings_from(settings, checkpoint.tokenizer, checkpoint.eos_ids)
    return settings
