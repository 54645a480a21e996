"""Parses the options of `metal-gen bench` that are not settings."""

from metal_gen.bench.request import (
    CAPACITY,
    CEILING,
    CONSTRAINT,
    DECODE,
    GRAPH,
    ON_REQUEST,
    PARTS,
    PREFILL,
    SECTIONS,
    STEP,
    UNCACHED,
    BenchRequest,
)
from metal_gen.config.checks import Choice, Whole, with_value
from metal_gen.errors import UsageError

FORMATS = ("table", "json", "csv", "markdown")
# Format by the ending of the output's name.
SUFFIXES = {".json": "json", ".csv": "csv", ".md": "markdown"}
COMPARED = ("mlx-lm",)
# The sections that each size belongs to. Ceilings are computed for the depths.
USED_BY = {
    "--prompt-tokens": {PREFILL},
    "--depths": {CEILING, DECODE, CAPACITY, UNCACHED, STEP, GRAPH, CONSTRAINT},
    "--capacities": {CAPACITY},
    "--decode-tokens": {DECODE, CAPACITY, UNCACHED, PARTS, STEP, CONSTRAINT},
}


def read_request(
    *,
    repeats: str,
    warmup: str,
    prompt_tokens: str | None,
    depths: str | None,
    capacities: str | None,
    decode_tokens: str | None,
    only: str | None,
    compare: str | None,
) -> BenchRequest:
    """Parse what to measure.

    Raises:
        UsageError: A number is out of range, or a word is unknown.
    """
    request = BenchRequest(
        repeats=_whole("--repeats", repeats, 1),
        warmup=_whole("--warmup", warmup, 0),
        prompt_tokens=_wholes("--prompt-tokens", prompt_tokens, 1),
        depths=_wholes("--depths", depths, 0),
        capacities=_wholes("--capacities", capacities, 1),
        decode_tokens=None if decode_tokens is None else _whole("--decode-tokens", decode_tokens, 2),
        sections=SECTIONS
        if only is None
        else tuple(_choice("--only", name, (*SECTIONS, *ON_REQUEST)) for name in _parts(only)),
        compare=compare is not None and bool(_choice("--compare", compare, COMPARED)),
    )
    sizes = {
        "--prompt-tokens": prompt_tokens,
        "--depths": depths,
        "--capacities": capacities,
        "--decode-tokens": decode_tokens,
    }
    for flag, size in sizes.items():
        if size is not None and not USED_BY[flag] & set(request.sections):
            users = [section for section in SECTIONS if section in USED_BY[flag]]
            raise UsageError(
                f"{flag} has no effect on --only {only}",
                f"leave it out, or add one of: {', '.join(users)}",
            )
    return request


def read_format(format: str | None, output: str | None) -> str:
    """Return the requested format, or the one that the name of the output implies.

    Raises:
        UsageError: The format is unknown.
    """
    if format is not None:
        return _choice("--format", format, FORMATS)
    ending = "." + (output or "").rpartition(".")[2]
    return SUFFIXES.get(ending, "table")


def _whole(flag: str, text: str, minimum: int) -> int:
    try:
        return Whole(minimum).from_text(text)
    except ValueError as error:
        raise UsageError(f"{flag} {with_value(error, repr(text))}") from None


def _wholes(flag: str, text: str | None, minimum: int) -> tuple[int, ...] | None:
    return None if text is None else tuple(_whole(flag, part, minimum) for part in _parts(text))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _choice(flag: str, text: str, words: tuple[str, ...]) -> str:
    try:
        return Choice(words)(text)
    except ValueError as error:
        raise UsageError(f"{flag} {with_value(error, repr(text))}") from None
