"""Notices to the user about a model and its settings, before it runs."""

from metal_gen.byte_sizes import format_bytes
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.generation_defaults import invalid_and_unused
from metal_gen.config.settings import Settings
from metal_gen.device.backend import can_wire_memory, counts_other_programs, runs_on_cpu
from metal_gen.device.blas import blas_in_use, blas_notice
from metal_gen.device.blas_advice import blas_advice
from metal_gen.device.mac_memory import unused_memory_bytes
from metal_gen.generation.memory.plan import MemoryPlan
from metal_gen.models.config.fields import listed

# A model with this many parameters feels slow if matrix products are slow.
SLOW_PARAMETERS = 100_000_000
# A smaller run finds room on any Mac.
LARGE_BYTES = 1 << 30


def notices_of(settings: Settings, checkpoint: Checkpoint) -> list[str]:
    """Return the notices, each as a sentence."""
    notices = [*checkpoint.notices]
    trained = checkpoint.config.context_length
    if settings.max_seq_len is not None and settings.max_seq_len > trained:
        notices.append(
            f"max_seq_len is {settings.max_seq_len} ({settings.source('max_seq_len')}), and the model's "
            f"context is {trained} tokens: text beyond that may be nonsense"
        )
    if checkpoint.config.unknown_fields:
        notices.append(
            f"the model's config has fields without effect: {listed(checkpoint.config.unknown_fields)}"
        )
    if invalid := invalid_and_unused(checkpoint.generation_config, settings.sources):
        notices.append(
            f"{checkpoint.generation_source} has invalid sampling values, which are left out: "
            f"{listed(invalid)}"
        )
    if settings.wired_memory and not can_wire_memory():
        source = settings.source("wired_memory")
        notices.append(
            f"wired_memory has no effect ({source}): memory is wired with Metal only, from macOS 15 on"
        )
    if settings.choice is not None and len(settings.choice) == 1 and "," in settings.choice[0]:
        notices.append(f"choice is one text: {settings.choice[0]!r}; for several, repeat --choice")
    if late := blas_notice(settings.blas):
        notices.append(late)
    if slow := _slow_products(settings, checkpoint) or _slow_prompts(settings, checkpoint):
        notices.append(slow)
    return notices


def limit_notice(settings: Settings, plan: MemoryPlan) -> str | None:
    """Say that a memory limit is more than this machine has; None if it is not."""
    limit = settings.memory_limit_bytes
    if limit is None or not 0 < plan.here_bytes < limit:
        return None
    source, here = settings.source("memory_limit_bytes"), format_bytes(plan.here_bytes)
    return (
        f"a memory limit of {format_bytes(limit)} has no effect ({source}): {here} are available here; "
        "`metal-gen plan` plans for other machines"
    )


def compile_notices(settings: Settings, plan: MemoryPlan, most_slots: int) -> list[str]:
    """Return the notice to a user whose `compile` has no effect; `most_slots` is as for `prepare`."""
    if settings.compile != "on" or not plan.cache.batch_size > most_slots == 1:
        return []
    return ["compile = 'on' has no effect: a single text is compiled only if batch_size is 1"]


def memory_notice(plan: MemoryPlan) -> str | None:
    """Warn of a run on a Mac that takes more memory than other programs leave; None if it does not."""
    if plan.total_bytes < LARGE_BYTES or counts_other_programs() or runs_on_cpu():
        return None
    unused = unused_memory_bytes()
    if unused is None or plan.total_bytes <= unused:
        return None
    return (
        f"the run takes {format_bytes(plan.total_bytes)}, and other programs leave {format_bytes(unused)} "
        "now: macOS may swap; close some of them, or use a smaller model"
    )


def _slow_prompts(settings: Settings, checkpoint: Checkpoint) -> str | None:
    """Say what quantizing costs on a CPU, where MLX multiplies quantized weights without a BLAS."""
    large = checkpoint.weights.num_parameters > SLOW_PARAMETERS
    if settings.quantize is None or not large or not runs_on_cpu():
        return None
    return (
        f"quantize = {settings.quantize!r} ({settings.source('quantize')}) saves memory and makes prompts "
        "slower on a CPU: leave it out if the model fits"
    )


def _slow_products(settings: Settings, checkpoint: Checkpoint) -> str | None:
    """Return advice on faster matrix products, for a model where it matters."""
    weights = checkpoint.weights
    # Products of quantized matrices are MLX's own.
    if weights.num_parameters <= SLOW_PARAMETERS or weights.is_quantized or not runs_on_cpu():
        return None
    blas = blas_in_use()
    advice = None if blas is None else blas_advice(blas, settings.blas)
    return None if advice is None else f"this model will be slow with {blas}: {advice}"
