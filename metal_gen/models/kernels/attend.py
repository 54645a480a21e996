"""The attention of new tokens, one per sequence: norm and rotation of heads, write to the cache, attention.

A group of threads takes one key/value head of one sequence, or a stretch of its positions, with all query
heads that share it. Each row of 32 lanes takes some of the positions; a lane holds a part of each head. The
results of the rows, and then those of the stretches, are weighed by their sums (as in arXiv 2205.14135).

The kernel writes into the buffers of the cache, which are its inputs. MLX does not know of such a write and
replaces no array, so it never copies a buffer that an earlier step still uses. The order is safe: each step
takes the token of the step before. Whoever else uses the buffers has to wait for the last step first
(`KVCache.settle`).

The new tokens may also be successive tokens of one text. Then a first run writes all keys and values, and a
second one, which takes a result of the first, attends.

Axes: B sequences, H query heads, G key/value heads, D head size, S capacity, P stretches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import mlx.core as mx

from metal_gen.device.device_memory import in_device_memory
from metal_gen.models.kernels.attend_source import CODE
from metal_gen.models.kernels.dialect import LANES, Size
from metal_gen.models.kernels.heads import MOST_STRETCHES, Heads
from metal_gen.models.matrices.matrix import computed

# Positions that a lane loads at once, besides those that it loads ahead.
AT_ONCE = 2


@dataclass(frozen=True)
class Job:
    """How to attend to a cache.

    Attributes:
        stretches: P.
        attend: Whether all tokens are of one text, and 0, int32.
        write: 1 and 1, for what to do before; None to write and attend at once.
    """

    stretches: int
    attend: mx.array
    write: mx.array | None = None

    @classmethod
    def of(cls, stretches: int, *, is_one_text: bool = False) -> "Job":
        """Return how to attend to this many stretches.

        Args:
            stretches: P.
            is_one_text: The tokens are successive tokens of one text, rather than one of each sequence.
        """
        write = _job(is_one_text=True, only_writes=True) if is_one_text else None
        return cls(stretches, _job(is_one_text=is_one_text, only_writes=False), write)


@cache
def _job(*, is_one_text: bool, only_writes: bool) -> mx.array:
    return computed(in_device_memory(mx.array([int(is_one_text), int(only_writes)], mx.int32)))


def attend(
    heads: Heads,
    rows: mx.array,
    weights: Sequence[mx.array],
    factors: mx.array,
    periods: mx.array,
    positions: mx.array,
    job: Job,
    buffers: Sequence[mx.array],
) -> mx.array:
    """Write the keys and values of new tokens, and attend with their queries.

    Args:
        heads: The heads.
        rows: Projections, (B, H D, then 2 G D) in turn: queries with their gates, keys, values. B counts the
            tokens if they are those of one text.
        weights: Norm weights of queries and keys, (D,) each in the rows' dtype; not read without a norm.
        factors: Constant of the norm; and factor of the scores, with log2(e), float32.
        periods: Periods of the rotary embedding, float32.
        positions: Position of each token, at least (B,), int32.
        job: How to attend to the cache.
        buffers: Keys and values, (B, G, S, D) each.

    Returns:
        (B, H D) in the dtype of the rows.
    """
    batch, size, lines = rows.shape[0], heads.head_dim, heads.rows
    sizes: dict[str, Size] = {
        "T": rows.dtype,
        "C": buffers[0].dtype,
        "QUERIES": heads.queries,
        "G": heads.num_kv_heads,
        "D": size,
        "ROTATED": heads.rotated,
        "GATED": int(heads.gated),
        "NORMED": int(heads.normed),
        "ROWS": lines,
        "EACH": heads.numbers_of_lane(buffers[0].dtype.size),
        "AT_ONCE": AT_ONCE,
        "MOST_STRETCHES": MOST_STRETCHES,
        "WINDOW": heads.window or 0,
    }
    given = [rows, *weights, factors, periods, positions]
    result, nothing = ((batch, heads.num_heads * size), rows.dtype), ((1,), mx.float32)
    across = lines * heads.num_kv_heads
    grid, group = (LANES * job.stretches, across, batch), (LANES, lines, 1)
    before = factors
    if job.write is not None:
        few = ((1,), rows.dtype)
        # What attends takes a result of this, so that it comes later.
        _, before, _ = CODE(
            [*given, job.write, *buffers, factors, factors],
            [few, nothing, nothing],
            sizes=sizes,
            grid=(LANES, across, batch),
            group=group,
        )
    inputs = [*given, job.attend, *buffers]
    if job.stretches == 1:
        results = [result, nothing, nothing]
        return CODE([*inputs, before, factors], results, sizes=sizes, grid=grid, group=group)[0]
    places = (batch, heads.num_kv_heads, job.stretches, heads.queries)
    _, *parts = CODE(
        [*inputs, before, factors],
        [((1,), rows.dtype), ((*places, size), mx.float32), ((*places, 2), mx.float32)],
        sizes=sizes,
        grid=grid,
        group=group,
    )
    return CODE(
        [*inputs, *parts],
        [result, nothing, nothing],
        sizes=sizes,
        grid=(size, heads.num_heads, batch),
        group=(size, 1, 1),
    )[0]
