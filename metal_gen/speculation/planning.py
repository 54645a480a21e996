"""Checks the models that guess, before any weights are read: MTP layers and draft models."""

import filecmp
from pathlib import Path

from metal_gen.cache.config import KVCacheConfig
from metal_gen.cache.forms import PACKED
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.mtp_weights import MtpWeights
from metal_gen.checkpoint.packed.quantizing import packing_named
from metal_gen.config.settings import Settings
from metal_gen.config.sources import place_of, refusal
from metal_gen.device.backend import dtype_to_compute_in
from metal_gen.errors import CheckpointError, MetalGenError
from metal_gen.excerpt import excerpt
from metal_gen.hub.locate import ProgressCallback, locate_checkpoint
from metal_gen.models.config.linear_attention import HYBRIDS
from metal_gen.speculation.depth import USUAL
from metal_gen.speculation.draft_model import CHUNK_SIZE, PlannedDraft
from metal_gen.speculation.draft_model import NAME as DRAFT
from metal_gen.speculation.mtp.planned import PlannedMtp
from metal_gen.speculation.mtp.source import NAME as MTP
from metal_gen.text.same_vocabulary import different_token
from metal_gen.text.tokenizer import FILE as TOKENIZER_FILE


def plan_mtp(settings: Settings, checkpoint: Checkpoint, dtype: str) -> PlannedMtp | None:
    """Check the layers for multi-token prediction of a checkpoint.

    Args:
        settings: Settings in force.
        checkpoint: Checkpoint of the target model.
        dtype: Dtype that the target computes in.

    Returns:
        None if the checkpoint has none that fit, and the settings do not ask for them.

    Raises:
        CheckpointError: It has some that do not fit, and the settings ask for them.
        UsageError: It has none, and the settings ask for them; ConfigError if a file or variable does.
    """
    is_wanted = settings.speculate == MTP
    try:
        weights = MtpWeights(checkpoint.weights)
    except CheckpointError:
        if is_wanted:
            raise
        return None
    if not weights and is_wanted:
        problem = "the checkpoint has no layers for multi-token prediction (mtp.*)"
        hint = "only Qwen3-Next, Qwen3.5, 3.6 and 3.8 have them; use --speculate lookup, or a --draft-model"
        if checkpoint.config.model_type in HYBRIDS:
            hint = (
                "conversions by mlx-lm drop them, as those of mlx-community do: use the original with "
                "--quantize, or convert it with `metal-gen convert`, which keeps them"
            )
        raise refusal(settings, "speculate", problem, hint)
    if not weights:
        return None
    cache = KVCacheConfig(
        num_layers=1,
        num_kv_heads=checkpoint.config.num_key_value_heads,
        head_dim=checkpoint.config.head_dim,
        max_seq_len=1,
        dtype=_cache_dtype(settings, dtype),
    )
    most = settings.draft_tokens or USUAL[MTP]
    return PlannedMtp(weights, dtype, cache, most, compile=settings.compile)


def plan_draft(
    settings: Settings,
    checkpoint: Checkpoint,
    *,
    folder: Path | None = None,
    on_download: ProgressCallback | None = None,
) -> PlannedDraft:
    """Find the draft model and check it.

    Args:
        settings: Settings in force; `draft_model` names it.
        checkpoint: Checkpoint of the target model.
        folder: Folder of the draft model, which may lack its tokenizer; None to find it.
        on_download: Called while files come from the Hub.

    Raises:
        UsageError: There is none, or it has another vocabulary; ConfigError if a file or variable names it.
        MetalGenError: It cannot be found, or is damaged or not supported. The error names the setting.
    """
    if settings.draft_model is None:
        raise refusal(
            settings,
            "speculate",
            "guesses of a draft model need one",
            "name a small model of the same family: --draft-model Qwen/Qwen3-0.6B",
        )
    try:
        draft = _opened(settings, folder or locate_checkpoint(settings.draft_model, on_progress=on_download))
        is_comparable = folder is None or (checkpoint.has_tokenizer and draft.has_tokenizer)
        difference = _difference(checkpoint, draft) if is_comparable else None
    except MetalGenError as error:
        place, _ = place_of(settings, "draft_model")
        raise type(error)(f"{place}: {error.message}", error.hint) from None
    if difference is not None:
        raise refusal(settings, "draft_model", difference, "choose a smaller model of the same family")
    dtype = dtype_to_compute_in(
        settings.model_dtype,
        draft.weights.dtype,
        has_experts=draft.config.experts is not None,
        is_quantized=draft.weights.is_quantized,
    )
    return PlannedDraft(
        draft,
        dtype,
        cache_dtype=_cache_dtype(settings, dtype),
        most_guesses=settings.draft_tokens or USUAL[DRAFT],
        chunk_size=min(settings.chunk_size or CHUNK_SIZE, CHUNK_SIZE),
        compile=settings.compile,
        kernels=settings.kernels != "off",
    )


def _opened(settings: Settings, folder: Path) -> Checkpoint:
    """Open the draft model. `quantize` applies to it too, unless it is stored quantized."""
    draft = Checkpoint(folder)
    if settings.quantize is None or draft.weights.is_quantized:
        return draft
    return Checkpoint(folder, packing=packing_named(settings.quantize))


def _difference(checkpoint: Checkpoint, draft: Checkpoint) -> str | None:
    """Describe how the draft's vocabulary differs; None if its ids mean the same tokens."""
    own, other = checkpoint.folder / TOKENIZER_FILE, draft.folder / TOKENIZER_FILE
    if own.is_file() and other.is_file() and filecmp.cmp(own, other, shallow=False):
        return None
    if different := different_token(checkpoint.tokenizer, draft.tokenizer):
        token, ours, theirs = different
        return (
            f"the draft model has another vocabulary: token {token} is {excerpt(theirs)!r} there, "
            f"and {excerpt(ours)!r} in the model"
        )
    largest = max(id for id in checkpoint.tokenizer.ids.values() if id < checkpoint.config.vocab_size)
    end = draft.config.vocab_size - 1
    if largest > end:
        return (
            f"the draft model has a smaller vocabulary: it ends at token {end}, and the model's at {largest}"
        )
    return None


def _cache_dtype(settings: Settings, dtype: str) -> str:
    # The caches of guesses are small: 8 bits are for the model's own.
    return dtype if settings.cache_dtype in ("auto", PACKED) else settings.cache_dtype
