"""Describes how a model's numbers are arranged in a GGUF file, if not in the model's order.

llama.cpp's converter moves the value heads of Qwen3.5's linear attention. In the model, those that share a
key head follow one another; in the file, the first of each key head come first, then the second of each. It
also keeps -exp(A_log) in place of A_log.

Source: `_LinearAttentionVReorderBase` in `conversion/qwen.py` of https://github.com/ggml-org/llama.cpp

Axes: H value heads, G key heads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

# First row and number of rows.
Run = tuple[int, int]


@dataclass(frozen=True)
class Arrangement:
    """How to rearrange a tensor while it is read.

    Attributes:
        runs: The rows of the file in the model's order; None for all rows in the file's order.
        parts: The places in the file of the equal parts of a row, in the model's order; None for one part.
        convert: Converts unquantized numbers of the file to those of the model; None if both are the same.
    """

    runs: tuple[Run, ...] | None = None
    parts: tuple[int, ...] | None = None
    convert: Callable[[mx.array], mx.array] | None = None


def head_order(heads: int, key_heads: int) -> tuple[int, ...]:
    """Return the places of the H value heads in the file, in the model's order."""
    shared = heads // key_heads
    return tuple(index % shared * key_heads + index // shared for index in range(heads))


def head_runs(order: Sequence[int], rows: int, before: int = 0) -> tuple[Run, ...]:
    """Return the rows of heads.

    Args:
        order: The places of the heads in the file.
        rows: The number of rows of a head.
        before: The number of rows before the heads, in the file and in the model.
    """
    return (*([(0, before)] if before else []), *((before + place * rows, rows) for place in order))


def decay_log(numbers: mx.array) -> mx.array:
    """Convert -exp(A_log) to A_log."""
    return mx.log(-numbers)


def split_runs(runs: Sequence[Run], most: int) -> Iterator[list[Run]]:
    """Divide runs into lists of at most `most` rows."""
    part: list[Run] = []
    room = most
    for first, count in runs:
        while count:
            taken = min(count, room)
            part.append((first, taken))
            first, count, room = first + taken, count - taken, room - taken
            if not room:
                yield part
                part, room = [], most
    if part:
        yield part
