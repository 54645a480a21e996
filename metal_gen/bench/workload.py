"""The sizes of a benchmark: those requested, or defaults that fit the cache."""

from collections.abc import Sequence
from dataclasses import dataclass

from metal_gen.bench.request import BenchRequest
from metal_gen.byte_sizes import format_bytes
from metal_gen.errors import DoesNotFitError, UsageError
from metal_gen.generation.memory.plan import MemoryPlan

DECODE_TOKENS = 32
FEWEST_DECODE_TOKENS = 2
PROMPT_TOKENS = (128, 512, 1024)
CAPACITIES = (512, 2048, 8192)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Sizes that all fit.

    Attributes:
        prompt_tokens: As in `BenchRequest`, ascending.
        depths: As in `BenchRequest`, ascending.
        lengths: Lengths of the texts that are continued with and without the cache.
        capacities: As in `BenchRequest`, ascending.
        capacity_depth: The depth at which capacities are compared.
        decode_tokens: As in `BenchRequest`.
    """

    prompt_tokens: tuple[int, ...]
    depths: tuple[int, ...]
    lengths: tuple[int, ...]
    capacities: tuple[int, ...]
    capacity_depth: int
    decode_tokens: int


def plan_workload(request: BenchRequest, plan: MemoryPlan) -> Workload:
    """Choose sizes, and refuse requested ones that do not fit.

    Raises:
        UsageError: A prompt, a depth or the new tokens do not fit the cache.
        DoesNotFitError: Caches of the requested capacities do not fit into memory.
    """
    capacity = plan.cache.max_seq_len
    count = request.decode_tokens or min(DECODE_TOKENS, capacity // 2)
    if not FEWEST_DECODE_TOKENS <= count <= capacity:
        raise UsageError(
            f"{max(count, FEWEST_DECODE_TOKENS)} new tokens do not fit the cache: max_seq_len is {capacity}",
            "raise --max-seq-len, or lower --decode-tokens",
        )
    deepest = capacity - count
    prompts = _within(request.prompt_tokens, PROMPT_TOKENS, capacity, "--prompt-tokens", capacity)
    quarters = tuple(share * deepest // 4 for share in (0, 1, 2, 4))
    depths = _within(request.depths, quarters, deepest, "--depths", capacity, f" and {count} new tokens")
    capacities = _capacities(request, plan, count)
    return Workload(
        prompt_tokens=prompts or (capacity,),
        depths=depths,
        lengths=tuple(depth for depth in depths if depth),
        capacities=capacities,
        capacity_depth=min(capacities[0] // 2, capacities[0] - count),
        decode_tokens=count,
    )


def _within(
    asked: Sequence[int] | None, usual: Sequence[int], most: int, flag: str, capacity: int, more: str = ""
) -> tuple[int, ...]:
    """Return the requested sizes, which must all fit, or those of the usual ones that fit."""
    for size in asked or ():
        if size > most:
            raise UsageError(
                f"{flag} {size}{more} do not fit the cache: max_seq_len is {capacity}",
                f"raise --max-seq-len, or use at most {most}",
            )
    return tuple(sorted({size for size in (asked or usual) if size <= most}))


def _capacities(request: BenchRequest, plan: MemoryPlan, count: int) -> tuple[int, ...]:
    """Return the capacities to compare; their caches are all in memory, next to that of the settings."""
    if request.capacities is not None:
        chosen = tuple(sorted(set(request.capacities)))
        if chosen[0] < count:
            raise UsageError(
                f"--capacities {chosen[0]} cannot hold {count} new tokens", "lower --decode-tokens"
            )
        listed = ", ".join(map(str, chosen))
        require_room(plan, _bytes_of(plan, chosen), f"caches of {listed} tokens", "lower --capacities")
        return chosen
    usual = [size for size in CAPACITIES if size >= count]
    while usual and not _has_room(plan, _bytes_of(plan, usual)):
        usual.pop()
    return tuple(usual) or (plan.cache.max_seq_len,)


def _bytes_of(plan: MemoryPlan, capacities: Sequence[int]) -> int:
    return plan.cache.bytes_per_token * sum(capacities)


def require_room(plan: MemoryPlan, more_bytes: int, what: str, hint: str) -> None:
    """Check that more memory fits next to the model and its cache.

    Raises:
        DoesNotFitError: It does not fit; the message has the memory needed and available.
    """
    if not _has_room(plan, more_bytes):
        raise DoesNotFitError(
            f"{what} do not fit next to the model: {format_bytes(plan.total_bytes + more_bytes)} of memory "
            f"are needed in total and {format_bytes(plan.available_bytes)} are available",
            hint,
        )


def _has_room(plan: MemoryPlan, more_bytes: int) -> bool:
    return not plan.available_bytes or plan.total_bytes + more_bytes <= plan.available_bytes
