"""Applies top-k, top-p and min-p to logits that have been divided by the temperature.

Decides exactly which tokens are kept: of equal logits, the lowest ids come first. A few candidates are
sorted, and on a GPU so is the whole vocabulary. A CPU sorts a large vocabulary slowly, so there a bisection
of 32 steps finds the smallest logit of the nucleus instead.

Axes: R rows, C candidates.
"""

import math

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.sampling.blocks import Candidates, in_blocks
from metal_gen.sampling.exponential import exp
from metal_gen.sampling.inverse_cdf import PLAIN_SUM
from metal_gen.sampling.strategy import SamplingStrategy

# Number of candidates to sort when searching for a nucleus among them.
NUCLEUS_SEARCH = 1024
# On a CPU, bisection is faster than sorting for vocabularies larger than this.
SORTED_QUICKLY = 65_536


def truncate(
    candidates: Candidates, strategy: SamplingStrategy, total: mx.array | None
) -> tuple[mx.array, mx.array]:
    """Remove tokens by top-k, then top-p, then min-p.

    Args:
        candidates: Candidates from the scaled logits.
        strategy: Strategy that is not greedy.
        total: Sum over the vocabulary of exp(logit - largest), (R, 1); needed if the candidates are not the
            whole vocabulary and there is a top-p without top-k.

    Returns:
        Weights (R, C): exp(logit - largest) of the kept tokens, and 0 for the others. And whether they are
        certain, (R, 1): false if a token that is not a candidate may belong to them.
    """
    logits, largest = candidates.logits, candidates.largest
    weights = exp(logits - largest)
    needed = threshold = largest + math.log(strategy.min_p) if strategy.min_p else largest
    if candidates.bound is None and strategy.top_k is None and _is_sorted_slowly(logits):
        if strategy.top_p is not None and strategy.top_p < 1:
            weights = weights * _reaching(logits, weights, strategy.top_p)
    elif strategy.top_k is not None or strategy.truncates_by_mass:
        searched = logits.shape[-1] if candidates.bound is None else NUCLEUS_SEARCH
        smallest, size, needed = _cut(logits, largest, strategy, searched, total)
        weights = weights * _first_of(logits, smallest, size)
    if strategy.min_p:
        weights = weights * (logits >= threshold)
    if candidates.bound is None:
        return weights, mx.ones(largest.shape, mx.bool_)
    # If every token outside the candidates has probability 0, none of them can be missing.
    return weights, (needed > candidates.bound) | (candidates.bound == -mx.inf)


def _cut(
    logits: mx.array, largest: mx.array, strategy: SamplingStrategy, searched: int, total: mx.array | None
) -> tuple[mx.array, mx.array, mx.array]:
    """Find where top-k and top-p cut, by sorting the largest candidates.

    Without top-k, the nucleus is searched among `searched` candidates.

    Returns:
        The smallest logit to keep; how many are kept; and the smallest logit that this result depends on,
        which is minus infinity if the candidates do not hold the mass. Each (R, 1).
    """
    count = min(strategy.top_k or searched, logits.shape[-1])
    few = mx.topk(logits, count, axis=-1) if count < logits.shape[-1] else logits
    last = few.min(axis=-1, keepdims=True)
    if strategy.top_p is None or strategy.top_p == 1:
        return last, mx.array([[count]]), last
    descending = -mx.sort(-few, axis=-1)
    weights = exp(descending - largest)
    mass = _running_sum(weights)
    wanted = strategy.top_p * (mass[:, -1:] if total is None else total)
    size = mx.maximum(((mass - weights) < wanted).sum(axis=-1, keepdims=True), 1)
    smallest = mx.take_along_axis(descending, size - 1, axis=-1)
    if total is None:
        return smallest, size, last
    return smallest, size, mx.where(mass[:, -1:] >= wanted, smallest, -mx.inf)


def _first_of(logits: mx.array, smallest: mx.array, size: mx.array) -> mx.array:
    """Return where the `size` largest are, given the smallest of them. Of equals, the lowest ids count."""
    above = logits > smallest
    equal = logits == smallest
    places = size - above.sum(axis=-1, keepdims=True)
    return above | (equal & (mx.cumsum(equal, axis=-1) <= places))


def _is_sorted_slowly(logits: mx.array) -> bool:
    return runs_on_cpu() and logits.shape[-1] > SORTED_QUICKLY


def _running_sum(values: mx.array) -> mx.array:
    """Return the running sum of (R, N), in blocks if it is long, because long sums in float32 drift."""
    if values.shape[-1] <= PLAIN_SUM:
        return mx.cumsum(values, axis=-1)
    blocks = in_blocks(values, 0.0)
    sums = blocks.sum(axis=-1)
    before = mx.cumsum(sums, axis=-1) - sums
    return (mx.cumsum(blocks, axis=-1) + before[:, :, None]).reshape(values.shape[0], -1)[
        :, : values.shape[-1]
    ]


def _reaching(logits: mx.array, weights: mx.array, share: float) -> mx.array:
    """Return the fewest largest logits whose weights reach a share of the total, without a sort.

    Args:
        logits: Logits, (R, V).
        weights: exp(logit - largest), (R, V).
        share: Share of the total, above 0 and below 1.

    Returns:
        Boolean mask of the kept logits, (R, V).
    """
    keys = _ordered_integers(logits)
    key_blocks, weight_blocks = in_blocks(keys, 0), in_blocks(weights, 0.0)

    def mass_from(key: mx.array) -> mx.array:
        # In blocks: MLX's CPU backend adds one number at a time, and long sums in float32 drift.
        return (weight_blocks * (key_blocks >= key[:, :, None])).sum(axis=-1).sum(axis=-1, keepdims=True)

    low = mx.zeros((logits.shape[0], 1), mx.uint32)
    wanted = share * mass_from(low)
    # The weights from `low` on reach the wanted mass, and those from `high` on do not.
    high = keys.max(axis=-1, keepdims=True) + 1
    for _ in range(32):
        middle = low + ((high - low) >> 1)
        enough = mass_from(middle) >= wanted
        low, high = mx.where(enough, middle, low), mx.where(enough, high, middle)
    equal = keys == low
    # Of the logits equal to the last one kept, keep as many as are still needed.
    each = (weights * equal).max(axis=-1, keepdims=True)
    lacking = wanted - mass_from(low + 1)
    places = mx.maximum(mx.ceil(lacking / each), 1)
    return (keys > low) | (equal & (mx.cumsum(equal.astype(mx.int32), axis=-1) <= places))


def _ordered_integers(values: mx.array) -> mx.array:
    """Map float32 to uint32 in the same order: flip the sign bit, or all bits of negatives.

    Adding zero makes -0.0 the 0.0 that it equals.
    """
    bits = (values + 0.0).view(mx.uint32)
    return mx.where(bits >> 31, ~bits, bits | 0x80000000)
