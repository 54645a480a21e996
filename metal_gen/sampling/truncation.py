"""Top-k, top-p and min-p, on logits that the temperature has divided.

Owns which tokens are kept, exactly: of equal logits the lowest ids come first. A few candidates
are put in order, and so is the whole vocabulary on a GPU. A CPU sorts slowly: there the range of
the smallest logit to keep is halved 32 times instead.

Axes: R rows, C candidates.
"""

import math

import mlx.core as mx

from metal_gen.backend import runs_on_cpu
from metal_gen.sampling.blocks import Candidates, in_blocks
from metal_gen.sampling.exponential import exp
from metal_gen.sampling.strategy import SamplingStrategy

# How many candidates are put in order to look for a nucleus among them.
NUCLEUS_SEARCH = 1024


def truncate(
    candidates: Candidates, strategy: SamplingStrategy, total: mx.array | None
) -> tuple[mx.array, mx.array]:
    """Leave out what top-k, then top-p, then min-p leave out.

    Args:
        candidates: Of the scaled logits.
        strategy: Not greedy.
        total: (R, 1) sum over the vocabulary of exp(logit - largest); needed where the candidates
            are not the whole vocabulary and there is a top-p without top-k.

    Returns:
        Weights (R, C): exp(logit - largest) of what is kept and 0 of the rest; and whether they
        are certain, (R, 1): false where a token that is no candidate may belong to them.
    """
    logits, largest = candidates.logits, candidates.largest
    weights = exp(logits - largest)
    if candidates.bound is None and runs_on_cpu():
        return _truncate_whole(logits, weights, largest, strategy), mx.ones(largest.shape, mx.bool_)
    bound = -mx.inf if candidates.bound is None else candidates.bound
    needed = threshold = largest + math.log(strategy.min_p) if strategy.min_p else largest
    if strategy.top_k is not None or strategy.truncates_by_mass:
        searched = logits.shape[-1] if candidates.bound is None else NUCLEUS_SEARCH
        smallest, size, needed = _cut(logits, largest, strategy, searched, total)
        weights = weights * _first_of(logits, smallest, size)
    if strategy.min_p:
        weights = weights * (logits >= threshold)
    return weights, needed > bound


def _cut(
    logits: mx.array, largest: mx.array, strategy: SamplingStrategy, searched: int, total: mx.array | None
) -> tuple[mx.array, mx.array, mx.array]:
    """Find where top-k and top-p cut, by putting the largest candidates in order.

    Without top-k a nucleus is looked for among so many of them as are `searched`.

    Returns:
        The smallest logit to keep, how many are kept, and the smallest logit that this rests on:
        minus infinity where the candidates do not hold the mass. Each (R, 1).
    """
    count = min(strategy.top_k or searched, logits.shape[-1])
    few = mx.topk(logits, count, axis=-1) if count < logits.shape[-1] else logits
    last = few.min(axis=-1, keepdims=True)
    if strategy.top_p is None or strategy.top_p == 1:
        return last, mx.array([[count]]), last
    descending = -mx.sort(-few, axis=-1)
    weights = exp(descending - largest)
    mass = mx.cumsum(weights, axis=-1)
    wanted = strategy.top_p * (mass[:, -1:] if total is None else total)
    size = mx.maximum(((mass - weights) < wanted).sum(axis=-1, keepdims=True), 1)
    smallest = mx.take_along_axis(descending, size - 1, axis=-1)
    if total is None:
        return smallest, size, last
    return smallest, size, mx.where(mass[:, -1:] >= wanted, smallest, -mx.inf)


def _first_of(logits: mx.array, smallest: mx.array, size: mx.array) -> mx.array:
    """Where the `size` largest are, given the smallest of them; of equals the lowest ids."""
    above = logits > smallest
    equal = logits == smallest
    places = size - above.sum(axis=-1, keepdims=True)
    return above | (equal & (mx.cumsum(equal, axis=-1) <= places))


def _truncate_whole(
    logits: mx.array, weights: mx.array, largest: mx.array, strategy: SamplingStrategy
) -> mx.array:
    """Truncate the whole vocabulary without putting it in order."""
    if strategy.top_k is not None and strategy.top_k < logits.shape[-1]:
        ones = mx.ones(weights.shape)
        weights = weights * _reaching(logits, ones, mx.full(largest.shape, float(strategy.top_k)))
    if strategy.top_p is not None and strategy.top_p < 1:
        total = in_blocks(weights, 0.0).sum(axis=-1).sum(axis=-1, keepdims=True)
        weights = weights * _reaching(logits, weights, strategy.top_p * total)
    if strategy.min_p:
        weights = weights * (logits >= largest + math.log(strategy.min_p))
    return weights


def _reaching(logits: mx.array, measure: mx.array, wanted: mx.array) -> mx.array:
    """Where the fewest largest logits are whose measure together reaches what is wanted.

    Args:
        logits: (R, V).
        measure: (R, V) of each token, not negative.
        wanted: (R, 1), at most the sum of the measure.

    Returns:
        Boolean (R, V).
    """
    keys = _ordered_integers(logits)
    key_blocks, measure_blocks = in_blocks(keys, 0), in_blocks(measure, 0.0)

    def measure_from(key: mx.array) -> mx.array:
        # In blocks: MLX's CPU backend adds one by one, and long sums in float32 drift.
        return (measure_blocks * (key_blocks >= key[:, :, None])).sum(axis=-1).sum(axis=-1, keepdims=True)

    # All from `low` on reach what is wanted; all from `high` on do not.
    low = mx.zeros(wanted.shape, mx.uint32)
    high = keys.max(axis=-1, keepdims=True) + 1
    for _ in range(32):
        middle = low + ((high - low) >> 1)
        enough = measure_from(middle) >= wanted
        low, high = mx.where(enough, middle, low), mx.where(enough, high, middle)
    equal = keys == low
    # Of those equal to the last one kept, as many as are still needed.
    each = (measure * equal).max(axis=-1, keepdims=True)
    lacking = wanted - measure_from(low + 1)
    places = mx.maximum(mx.ceil(lacking / each), 1)
    return (keys > low) | (equal & (mx.cumsum(equal.astype(mx.int32), axis=-1) <= places))


def _ordered_integers(values: mx.array) -> mx.array:
    """Map float32 to uint32 in the same order: flip the sign bit, or all bits of negatives.

    Adding zero makes -0.0 the 0.0 that it equals.
    """
    bits = (values + 0.0).view(mx.uint32)
    return mx.where(bits >> 31, ~bits, bits | 0x80000000)
