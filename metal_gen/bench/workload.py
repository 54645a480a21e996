"""How much is measured: the sizes that were asked for, or those that suit the cache."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from metal_gen.bench.request import BenchRequest
from metal_gen.errors import UsageError
from metal_gen.memory_plan import MemoryPlan

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
        lengths: Of texts that are continued with the cache and without.
        capacities: As in `BenchRequest`, ascending.
        capacity_depth: The depth at which they are compared.
        decode_tokens: As in `BenchRequest`.
    """

    prompt_tokens: tuple[int, ...]
    depths: tuple[int, ...]
    lengths: tuple[int, ...]
    capacities: tuple[int, ...]
    capacity_depth: int
    decode_tokens: int


def plan_workload(request: BenchRequest, plan: MemoryPlan) -> Workload:
    """Choose sizes, and refuse those that cannot be.

    Raises:
        UsageError: A prompt, a depth or the new tokens do not fit the cache.
        DoesNotFitError: Caches of the capacities that were asked for do not fit into memory.
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
    """The sizes in use: of the usual ones those that fit; one that was asked for has to."""
    for size in asked or ():
        if size > most:
            raise UsageError(
                f"{flag} {size}{more} do not fit the cache: max_seq_len is {capacity}",
                f"raise --max-seq-len, or go to {most} at most",
            )
    return tuple(sorted({size for size in (asked or usual) if size <= most}))


def _capacities(request: BenchRequest, plan: MemoryPlan, count: int) -> tuple[int, ...]:
    """All caches stand side by side, beside the one of the settings."""
    if request.capacities is not None:
        chosen = tuple(sorted(set(request.capacities)))
        if chosen[0] < count:
            raise UsageError(
                f"--capacities {chosen[0]} cannot hold {count} new tokens", "lower --decode-tokens"
            )
        with_capacities(plan, chosen).require_fit()
        return chosen
    usual = [size for size in CAPACITIES if size >= count]
    while len(usual) > 1 and not with_capacities(plan, usual).fits:
        usual.pop()
    return tuple(usual) if with_capacities(plan, usual).fits else (plan.cache.max_seq_len,)


def with_capacities(plan: MemoryPlan, capacities: Sequence[int]) -> MemoryPlan:
    """The plan with one cache as large as all of them."""
    together = plan.cache.max_seq_len + sum(capacities)
    return replace(plan, cache=replace(plan.cache, max_seq_len=together))
