"""Draws tokens from logits, in float32, with explicit keys.

Axes: B sequences, V vocabulary.
"""

import mlx.core as mx

from metal_gen.sampling.strategy import SamplingStrategy

BLOCK = 512


def sample_token(logits: mx.array, strategy: SamplingStrategy, key: mx.array) -> mx.array:
    """Choose one token per row.

    Args:
        logits: (B, V) or (V,), of any floating dtype; computed on in float32.
        strategy: What to do with them. Of equal logits the lowest ids are kept first.
        key: As `mx.random.key` makes it; equal keys give equal draws.

    Returns:
        (B,) or () uint32 token ids.
    """
    if strategy.is_greedy:
        return mx.argmax(logits, axis=-1)
    scaled = logits.astype(mx.float32) / strategy.temperature
    rows = scaled.reshape(-1, scaled.shape[-1])
    probabilities = mx.softmax(_truncate(rows, strategy), axis=-1)
    return _draw(probabilities, key).reshape(logits.shape[:-1])


def _truncate(scaled: mx.array, strategy: SamplingStrategy) -> mx.array:
    """Set what top-k and then top-p leave out to minus infinity."""
    vocabulary = scaled.shape[-1]
    top_k = min(strategy.top_k or vocabulary, vocabulary)
    top_p = strategy.top_p if strategy.top_p is not None else 1.0
    if top_k == vocabulary and top_p == 1.0:
        return scaled
    descending = -mx.sort(-scaled, axis=-1)[:, :top_k]
    kept = mx.full((scaled.shape[0], 1), top_k, dtype=mx.int32)
    if top_p < 1.0:
        probabilities = mx.softmax(descending, axis=-1)
        mass_before = _cumulative(probabilities) - probabilities
        kept = mx.maximum((mass_before < top_p).sum(axis=-1, keepdims=True), 1)
    return _keep_largest(scaled, mx.take_along_axis(descending, kept - 1, axis=-1), kept)


def _keep_largest(scaled: mx.array, smallest: mx.array, kept: mx.array) -> mx.array:
    """Keep `kept` entries (B, 1) per row, given the smallest kept value (B, 1)."""
    above = scaled > smallest
    equal = scaled == smallest
    places = kept - above.sum(axis=-1, keepdims=True)
    first_equal = equal & (mx.cumsum(equal.astype(mx.int32), axis=-1) <= places)
    return mx.where(above | first_equal, scaled, -mx.inf)


def _draw(probabilities: mx.array, key: mx.array) -> mx.array:
    """Invert the cumulative distribution, in order of ids, at one uniform number per row."""
    cumulative = _cumulative(probabilities)
    uniform = mx.random.uniform(shape=(probabilities.shape[0], 1), key=key)
    reached = (cumulative > uniform * cumulative[:, -1:]) & (probabilities > 0)
    # Rounding can put the last uniform number at the total itself, where nothing lies beyond.
    last_resort = mx.argmax(probabilities, axis=-1)
    return mx.where(reached.any(axis=-1), mx.argmax(reached, axis=-1), last_resort)


def _cumulative(values: mx.array) -> mx.array:
    """Running sum along the last axis (B, N), in blocks.

    A plain float32 sum over a flat vocabulary of 151,936 drifts by parts in a thousand, because
    each addend is rounded to the size of the total; sums of 512 do not.
    """
    rows, length = values.shape
    padded = mx.pad(values, [(0, 0), (0, -length % BLOCK)])
    within = mx.cumsum(padded.reshape(rows, -1, BLOCK), axis=-1)
    before = mx.cumsum(within[:, :, -1], axis=-1) - within[:, :, -1]
    return (within + before[:, :, None]).reshape(rows, -1)[:, :length]
