"""The sections of a benchmark, and a request to run some of them."""

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
STEP = "step"
CONSTRAINT = "constraint"
SPECULATION = "speculation"
# In the order in which they run: sections that need a process without a model come first.
SECTIONS = (
    *(CEILING, COLD_START, LOAD, MEMORY, PREFILL, DECODE, CAPACITY),
    *(UNCACHED, PARTS, STEP, GRAPH, CONSTRAINT),
)
# Measured on request alone.
ON_REQUEST = (SPECULATION,)
NEED_CEILING = frozenset((CEILING, DECODE, CAPACITY))
NEED_NO_MODEL = frozenset((CEILING, COLD_START, LOAD))


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """A request to run a benchmark; None means the default.

    Attributes:
        repeats: Number of values per figure.
        warmup: Number of discarded rounds before them.
        prompt_tokens: Prompt lengths in tokens.
        depths: Numbers of tokens in the cache before the timed ones.
        capacities: Cache capacities to compare, in tokens.
        decode_tokens: Number of new tokens per value of a decode speed.
        sections: Sections to run, from `SECTIONS` and `ON_REQUEST`.
        compare: Measure mlx-lm as well.
    """

    repeats: int = 5
    warmup: int = 1
    prompt_tokens: tuple[int, ...] | None = None
    depths: tuple[int, ...] | None = None
    capacities: tuple[int, ...] | None = None
    decode_tokens: int | None = None
    sections: tuple[str, ...] = SECTIONS
    compare: bool = False
