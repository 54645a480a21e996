"""Finds the largest of many logits without sorting all of them.

The vocabulary is cut into blocks of 128. The k largest logits lie in the k blocks with the largest maxima,
so a few thousand candidates hold every token that a usual nucleus needs. The largest maximum of the other
blocks is a bound on the logits that the candidates lack.

Axes: R rows, V vocabulary, C candidates.
"""

import math
from typing import NamedTuple

import mlx.core as mx

BLOCK = 128


class Candidates(NamedTuple):
    """Candidate logits, in the order of their token ids.

    Attributes:
        logits: Candidate logits, (R, C) float32.
        ids: Their token ids, (R, C); None if the candidates are the whole vocabulary.
        largest: Largest logit, (R, 1); NaN if the row has NaN.
        bound: Upper limit of the logits left out, (R, 1); None if none is left out.
    """

    logits: mx.array
    ids: mx.array | None
    largest: mx.array
    bound: mx.array | None


def argmax(logits: mx.array) -> tuple[mx.array, mx.array]:
    """Return the id of each row's largest logit, (R,), and that logit, (R, 1).

    Of equal logits, the lowest id wins. A row with NaN gives NaN. On a CPU this takes half the time of
    `mx.argmax`.
    """
    blocks = in_blocks(logits)
    maxima = blocks.max(axis=-1)
    best = mx.argmax(maxima, axis=-1, keepdims=True)
    within = mx.argmax(mx.take_along_axis(blocks, best[:, :, None], axis=1), axis=-1)
    # Not the maximum at `best`: argmax skips NaN in MLX before 0.32.4, but max never does.
    return (best * BLOCK + within).squeeze(-1), maxima.max(axis=-1, keepdims=True)


def whole_vocabulary(logits: mx.array) -> Candidates:
    """Return all tokens as candidates."""
    largest = in_blocks(logits).max(axis=-1).max(axis=-1, keepdims=True)
    return Candidates(logits, None, largest, None)


def largest_blocks(logits: mx.array, count: int) -> Candidates:
    """Return the `count` blocks with the largest maxima. `count` must be below the number of blocks."""
    rows = logits.shape[0]
    blocks = in_blocks(logits)
    maxima = blocks.max(axis=-1)
    order = mx.argsort(-maxima, axis=-1)
    chosen = mx.sort(order[:, :count], axis=-1)[:, :, None]
    ids = chosen * BLOCK + mx.arange(BLOCK)
    return Candidates(
        logits=mx.take_along_axis(blocks, chosen, axis=1).reshape(rows, -1),
        ids=ids.reshape(rows, -1),
        largest=maxima.max(axis=-1, keepdims=True),
        bound=mx.take_along_axis(maxima, order[:, count : count + 1], axis=-1),
    )


def few_largest(logits: mx.array, count: int) -> Candidates:
    """Return candidates that hold the `count` largest logits: the whole vocabulary if it is small."""
    blocks = -(-logits.shape[-1] // BLOCK)
    return whole_vocabulary(logits) if count >= blocks else largest_blocks(logits, max(count, 1))


def in_blocks(values: mx.array, filler: float = -math.inf) -> mx.array:
    """View (R, N) as (R, blocks, 128), with the last block padded."""
    rows, count = values.shape
    if count % BLOCK:
        values = mx.pad(values, [(0, 0), (0, -count % BLOCK)], constant_values=filler)
    return values.reshape(rows, -1, BLOCK)
