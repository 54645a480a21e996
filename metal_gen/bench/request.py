"""What can be measured, and what is asked for."""

from dataclasses import dataclass

CEILING = "ceiling"
COLD_START = "cold-start"
LOAD = "load"
MEMORY = "memory"
PREFILL = "prefill"
DECODE = "decode"
CAPACITY = "capacity"
UNCACHED = "uncached"
PARTS = "parts"
GRAPH = "graph"
# In the order in which they are measured: what must not find a model in memory comes first.
SECTIONS = (CEILING, COLD_START, LOAD, MEMORY, PREFILL, DECODE, CAPACITY, UNCACHED, PARTS, GRAPH)
NEED_CEILING = frozenset((CEILING, DECODE, CAPACITY))
NEED_NO_MODEL = frozenset((CEILING, COLD_START, LOAD))


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """What a person asks for; None is left to the defaults.

    Attributes:
        repeats: Values of each figure.
        warmup: Rounds before them that are not counted.
        prompt_tokens: Lengths of prompts.
        depths: Tokens in the cache before those that are timed.
        capacities: Of caches that are compared.
        decode_tokens: New tokens of one value of a decode speed.
        sections: Of `SECTIONS`.
        compare: Measure mlx-lm beside metal-gen.
    """

    repeats: int = 5
    warmup: int = 1
    prompt_tokens: tuple[int, ...] | None = None
    depths: tuple[int, ...] | None = None
    capacities: tuple[int, ...] | None = None
    decode_tokens: int | None = None
    sections: tuple[str, ...] = SECTIONS
    compare: bool = False
