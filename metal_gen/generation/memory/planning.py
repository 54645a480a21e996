"""Adds up what a run takes, from settings and the headers of a checkpoint."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from metal_gen.cache.config import HybridCacheConfig, KVCacheConfig
from metal_gen.cache.forms import PACKED, can_pack
from metal_gen.cache.packed_heads import GROUP_SIZE
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.device.backend import (
    DTYPE_BYTES,
    available_memory_bytes,
    dtype_to_compute_in,
    most_array_bytes,
    preferred_chunk_size,
    runs_on_cpu,
)
from metal_gen.errors import ConfigError
from metal_gen.generation.guessing import most_guesses, planned_source, why_no_guesses
from metal_gen.generation.memory.capacity import capacity_for_any, usual_capacity
from metal_gen.generation.memory.plan import FEWEST_CHUNK, MemoryPlan
from metal_gen.hub.locate import ProgressCallback
from metal_gen.models.cache_size import cache_size
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.matrices.quantized import WORD_BITS
from metal_gen.speculation.planned import PlannedSource


def plan_run(
    settings: Settings,
    checkpoint: Checkpoint,
    *,
    most_slots: int = 1,
    draft_folder: Path | None = None,
    on_download: ProgressCallback | None = None,
    for_any_machine: bool = False,
) -> tuple[MemoryPlan, PlannedSource | None, str | None]:
    """Add up the memory of a run that generates texts, with guesses if it makes any.

    Args:
        settings: Settings in force.
        checkpoint: The opened checkpoint.
        most_slots: Number of texts to generate at once, as for `prepare`.
        draft_folder: As for `planned_source`.
        on_download: As for `planned_source`.
        for_any_machine: As for `plan_memory`.

    Returns:
        The plan; the source of guesses, or None; and why there are no guesses although there could be.

    Raises:
        MetalGenError: Any error of `planned_source` and `plan_memory`.
    """
    dtype = _dtype_of(settings, checkpoint)
    guesses = planned_source(settings, checkpoint, dtype, draft_folder=draft_folder, on_download=on_download)
    planned = partial(
        plan_memory, settings, checkpoint, most_slots=most_slots, for_any_machine=for_any_machine
    )
    plan = planned(guesses=guesses)
    why_off = None if guesses is None else why_no_guesses(settings, plan, most_slots)
    if why_off is None:
        return plan, guesses, None
    return planned(), None, why_off


def plan_memory(
    settings: Settings,
    checkpoint: Checkpoint,
    *,
    most_slots: int = 1,
    guesses: PlannedSource | None = None,
    scores: bool = False,
    in_slots: bool = False,
    for_any_machine: bool = False,
) -> MemoryPlan:
    """Add up the memory of a run, whether or not the device has it.

    For a single text, the cache shrinks from its usual size if that makes the run fit. For a batch it does
    not, because its texts may depend on that size.

    Args:
        settings: Settings in force.
        checkpoint: The opened checkpoint.
        most_slots: Number of texts to generate at once, as for `prepare`.
        guesses: Source of guesses, if there is one.
        scores: Texts are scored, not generated.
        in_slots: They are scored in slots even if there is only one.
        for_any_machine: The memory limit may be more than this machine has: the run is for another one.

    Raises:
        ConfigError: A setting contradicts the checkpoint.
    """
    dtype = _dtype_of(settings, checkpoint)
    here_bytes, limit = available_memory_bytes(), settings.memory_limit_bytes
    is_elsewhere = for_any_machine and limit is not None and 0 < here_bytes < limit
    known = [size for size in (limit, here_bytes) if size]
    plan = MemoryPlan(
        model=checkpoint.config,
        dtype=dtype,
        weights_bytes=checkpoint.weights.nbytes(dtype),
        element_bytes=WORD_BITS // 8 if checkpoint.weights.is_quantized else DTYPE_BYTES[dtype],
        weights_read_bytes=checkpoint.weights.bytes_per_token(dtype),
        loading_bytes=checkpoint.weights.loading_peak_bytes(dtype),
        has_products_apart=checkpoint.weights.has_products_apart,
        has_head_norms=checkpoint.weights.has_head_norms,
        allows_kernels=settings.kernels != "off",
        is_constrained=settings.is_constrained,
        cache=cache_config(settings, checkpoint.config, dtype),
        most_chunk=settings.chunk_size or preferred_chunk_size(),
        least_chunk=settings.chunk_size or FEWEST_CHUNK,
        available_bytes=max(known) if is_elsewhere else min(known, default=0),
        here_bytes=here_bytes,
        # A device with more memory allows larger arrays.
        most_array_bytes=0 if is_elsewhere else most_array_bytes(),
        stores_prefixes=settings.prefix_cache,
        scores=scores,
        scores_in_slots=scores
        and checkpoint.config.linear is None
        and (in_slots or max(most_slots, settings.batch_size or 1) > 1),
    )
    if guesses is not None:
        plan = _with_guesses(plan, guesses)
    if settings.batch_size is None:
        plan = plan.with_slots(most_slots)
    if settings.max_seq_len is None and most_slots == plan.cache.batch_size == 1:
        plan = plan.with_cache(max_seq_len=capacity_for_any(plan).tokens)
    return plan


def _dtype_of(settings: Settings, checkpoint: Checkpoint) -> str:
    """Return the dtype that a checkpoint computes in.

    Raises:
        ConfigError: A setting contradicts the checkpoint.
    """
    return dtype_to_compute_in(
        settings.model_dtype,
        checkpoint.weights.dtype,
        has_experts=checkpoint.config.experts is not None,
        is_quantized=checkpoint.weights.is_quantized,
    )


def _with_guesses(plan: MemoryPlan, guesses: PlannedSource) -> MemoryPlan:
    """Return the plan with a source of guesses, and with the states of a hybrid that they need."""
    most = most_guesses(guesses, plan.model)
    plan = replace(plan, guesses=replace(guesses.memory, most_guesses=most))
    if not isinstance(plan.cache, HybridCacheConfig):
        return plan
    # A pass has a token and the guesses after it.
    name = "recent_passes" if runs_on_cpu() else "most_replayed"
    return plan.with_cache(**{name: most + 1})


def cache_config(settings: Settings, model: ModelConfig, dtype: str) -> KVCacheConfig:
    """Return the size of the cache: its shape from the checkpoint, its capacity from the settings.

    Raises:
        ConfigError: A setting contradicts the checkpoint.
    """
    shape = {
        "num_layers": model.num_cached_layers,
        "num_kv_heads": model.num_key_value_heads,
        "head_dim": model.head_dim,
    }
    for name, actual in shape.items():
        wanted = getattr(settings, name)
        if wanted not in (None, actual):
            raise ConfigError(
                f"{settings.source(name)}: [cache] {name} is {wanted} and the checkpoint has {actual}",
                "leave it out: the checkpoint decides",
            )
    if settings.cache_dtype == PACKED and not can_pack(model.head_dim):
        raise ConfigError(
            f"{settings.source('cache_dtype')}: a cache in 8 bits needs heads of a multiple of {GROUP_SIZE} "
            f"numbers, and this model's have {model.head_dim}",
            "leave dtype under [cache], or --cache-dtype, at auto",
        )
    return cache_size(
        model,
        max_seq_len=settings.max_seq_len or usual_capacity(model),
        batch_size=settings.batch_size or 1,
        dtype=dtype if settings.cache_dtype == "auto" else settings.cache_dtype,
    )
