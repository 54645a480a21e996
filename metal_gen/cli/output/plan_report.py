"""A memory plan as a table and as JSON, together with plans for other caches."""

from collections.abc import Iterator
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from metal_gen.byte_sizes import format_bytes
from metal_gen.cache.forms import CACHE_DTYPES, can_pack
from metal_gen.checkpoint.adapters.adapter import Adapter
from metal_gen.checkpoint.bundled import BUNDLED_NAME
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.cli.terminal.tables import Column, pairs_table, rows_table, shown
from metal_gen.config.settings import Settings
from metal_gen.device.backend import DTYPE_BYTES, counts_other_programs, device_name
from metal_gen.generation.memory.plan import MemoryPlan
from metal_gen.speculation.planned import GuessMemory

BATCH_SIZES = (1, 2, 4, 8, 16)
COLUMNS = (
    Column("texts", is_figure=True),
    Column("cache", is_figure=True),
    Column("in all", is_figure=True),
    Column("longest", is_figure=True),
    Column("fits"),
)


def render_plan(name: str, checkpoint: Checkpoint, plan: MemoryPlan, width: int) -> RenderableType:
    """Return the plan for the settings, then a table of other caches."""
    length = f"{plan.cache.max_seq_len:,} tokens for each of several texts"
    parts: list[RenderableType] = [
        pairs_table(_pairs(name, checkpoint, plan)),
        Text(f"\nCaches of {length}, and the largest max_seq_len that fits:"),
    ]
    for plans in _by_size(plan):
        names = " or ".join(dict.fromkeys(other.cache.dtype for other in plans))
        heading = f"\n{names}, {format_bytes(_bytes_of_a_token(plans[0]))} a token"
        rows = [
            (
                f"{other.cache.batch_size:,}",
                format_bytes(other.cache.nbytes),
                format_bytes(other.total_bytes),
                _longest(other),
                "yes" if other.fits else "no",
            )
            for other in plans
            if other.cache.dtype == plans[0].cache.dtype
        ]
        parts += [Text(heading, style="bold"), rows_table(COLUMNS, rows, width)]
    return Group(*parts)


def _pairs(name: str, checkpoint: Checkpoint, plan: MemoryPlan) -> list[tuple[str, str]]:
    cache = plan.cache
    texts = "1 text" if cache.batch_size == 1 else f"{cache.batch_size:,} texts"
    return [
        ("model", f"{shown(name)}, {checkpoint.weights.num_parameters:,} parameters"),
        ("dtype", _dtype(plan.dtype, checkpoint)),
        *[("adapter", _shown_adapter(adapter)) for adapter in checkpoint.weights.adapters],
        ("weights", format_bytes(plan.weights_bytes)),
        (
            "cache",
            f"{format_bytes(cache.nbytes)}: {cache.max_seq_len:,} tokens of "
            f"{format_bytes(_bytes_of_a_token(plan))} in {cache.dtype}, {texts}",
        ),
        *([("constraint", format_bytes(plan.constraint_bytes))] if plan.is_constrained else []),
        *([("guesses", _shown_guesses(plan, plan.guesses))] if plan.guesses is not None else []),
        (
            "working memory",
            f"{format_bytes(plan.working_bytes)}, for {plan.chunk_size:,} prompt tokens at once"
            + ("" if plan.chunk_reason is None else f": {plan.chunk_reason}"),
        ),
        *([("while loading", _shown_loading(plan))] if plan.is_loading_more else []),
        ("in all", format_bytes(plan.total_bytes)),
        ("available", _shown_available(plan)),
        *([("computed as on", device_name())] if plan.is_for_another_machine else []),
        ("fits", "yes" if plan.fits else "no"),
        ("largest max_seq_len", f"{_longest(plan)}; the model was trained for {plan.model.context_length:,}"),
    ]


def _shown_available(plan: MemoryPlan) -> str:
    available = format_bytes(plan.available_bytes) if plan.available_bytes else "not known"
    if plan.is_for_another_machine:
        here = format_bytes(plan.here_bytes)
        return f"{available} on another machine, as the limit says; this one has {here}"
    others = "" if counts_other_programs() else "; what other programs use is not taken off"
    return f"{available} on {device_name()}{others}"


def _shown_guesses(plan: MemoryPlan, guesses: GuessMemory) -> str:
    """Return the memory of guesses: what does not depend on the cache, and what each of its tokens takes."""
    fixed = f"{format_bytes(guesses.fixed_bytes)}, and " if guesses.fixed_bytes else ""
    return f"{format_bytes(plan.guesses_bytes)}: {fixed}{format_bytes(guesses.bytes_per_token)} a token"


def _shown_loading(plan: MemoryPlan) -> str:
    return f"{format_bytes(plan.loading_bytes)}, before there is a cache: weights in two forms"


def _shown_adapter(adapter: Adapter) -> str:
    weighed = "" if adapter.scale == 1 else f", times {adapter.scale:g}"
    counts = f"matrices added to: {len(adapter.low_ranks):,}"
    if adapter.whole:
        counts += f", tensors replaced: {len(adapter.whole):,}"
    return f"{shown(str(adapter.folder))}{weighed}; {counts}"


def _dtype(dtype: str, checkpoint: Checkpoint) -> str:
    """Return the compute dtype, the stored dtype if it differs, and the quantization."""
    weights = checkpoint.weights
    if checkpoint.packing is None and weights.is_quantized:
        return f"{dtype}, stored quantized"
    stored = "" if weights.dtype == dtype else f", stored as {weights.dtype}"
    return dtype + stored + ("" if checkpoint.packing is None else f", quantized to {checkpoint.packing}")


def plan_json(settings: Settings, checkpoint: Checkpoint, plan: MemoryPlan) -> dict[str, object]:
    """Return the plan as JSON types; unknown memory is null."""
    return {
        "model": settings.model or BUNDLED_NAME,
        "adapters": [adapter.record for adapter in checkpoint.weights.adapters],
        "device": device_name(),
        "parameters": checkpoint.weights.num_parameters,
        "stored_dtype": checkpoint.weights.dtype,
        "dtype": plan.dtype,
        "quantize": settings.quantize,
        "context_length": plan.model.context_length,
        "chunk_size": plan.chunk_size,
        "chunk_reason": plan.chunk_reason,
        "max_seq_len": plan.cache.max_seq_len,
        "weights_bytes": plan.weights_bytes,
        "loading_bytes": plan.loading_bytes,
        "available_bytes": plan.available_bytes or None,
        "available_here_bytes": plan.here_bytes or None,
        "for_another_machine": plan.is_for_another_machine,
        "counts_other_programs": counts_other_programs(),
        **_cache_json(plan),
        "alternatives": [_cache_json(other) for other in _others(plan)],
    }


def _cache_json(plan: MemoryPlan) -> dict[str, object]:
    return {
        "batch_size": plan.cache.batch_size,
        "cache_dtype": plan.cache.dtype,
        "cache_bytes_per_token": _bytes_of_a_token(plan),
        "cache_bytes": plan.cache.nbytes,
        "constraint_bytes": plan.constraint_bytes,
        "guesses_bytes": plan.guesses_bytes,
        "working_bytes": plan.working_bytes,
        "total_bytes": plan.total_bytes,
        "fits": plan.fits,
        "largest_max_seq_len": plan.largest_max_seq_len,
    }


def _others(plan: MemoryPlan) -> Iterator[MemoryPlan]:
    """Yield the plan with other caches of the same length, larger elements first."""
    for dtype in CACHE_DTYPES if can_pack(plan.cache.head_dim) else DTYPE_BYTES:
        for size in sorted({*BATCH_SIZES, plan.cache.batch_size}):
            yield plan.with_cache(batch_size=size, dtype=dtype)


def _by_size(plan: MemoryPlan) -> Iterator[list[MemoryPlan]]:
    """Group plans by the size of a token: some dtypes differ only in name."""
    for _, plans in groupby(_others(plan), key=_bytes_of_a_token):
        yield list(plans)


def _bytes_of_a_token(plan: MemoryPlan) -> int:
    """Return the cache bytes per token of one text."""
    return plan.cache.bytes_per_token // plan.cache.batch_size


def _longest(plan: MemoryPlan) -> str:
    longest = plan.largest_max_seq_len
    return f"{longest:,}" if longest else "none"
