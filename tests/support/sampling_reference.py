"""A reference for the samplers in float64: plain, slow, and one row at a time.

Every function follows the order that `SamplingStrategy` states: penalties, bias, temperature,
top-k, top-p, min-p. Of equal logits the lowest ids come first.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metal_gen.sampling.strategy import SamplingStrategy

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Allowed error of float32 at the edges of the nucleus and of min-p, where a sum decides.
SLACK = 1e-5
# A float32 weight need not hold smaller weights, of e^-85.
SMALLEST_WEIGHT_LOG = -85.0


def adjusted(
    logits: ArrayLike,
    strategy: SamplingStrategy,
    prompt: Sequence[int] = (),
    generated: Sequence[int] = (),
    banned: Collection[int] = (),
) -> Floats:
    """Apply the penalties and the bias to logits (V,)."""
    values = np.array(logits, dtype=np.float64)
    text = [*prompt, *generated]
    window = len(text) if strategy.repetition_window is None else strategy.repetition_window
    for token in set(text[max(0, len(text) - window) :]):
        penalty = strategy.repetition_penalty
        values[token] = values[token] / penalty if values[token] > 0 else values[token] * penalty
    for token, count in Counter(generated).items():
        values[token] -= strategy.presence_penalty + strategy.frequency_penalty * count
    for token, bias in dict(strategy.logit_bias).items():
        values[token] += bias
    for token in banned:
        values[token] = -math.inf
    return values


def kept(logits: ArrayLike, strategy: SamplingStrategy) -> Mask:
    """Return which of the adjusted logits (V,) can be drawn."""
    scaled = np.asarray(logits, dtype=np.float64) / strategy.temperature
    order = np.argsort(-scaled, kind="stable")[: strategy.top_k]
    weights = np.exp(scaled[order] - scaled.max())
    if strategy.top_p is not None and strategy.top_p < 1:
        mass = np.cumsum(weights)
        size = 1 + int((mass < strategy.top_p * mass[-1]).sum())
        order, weights = order[:size], weights[:size]
    if strategy.min_p:
        order = order[weights >= strategy.min_p]
    mask = np.zeros(len(scaled), dtype=np.bool_)
    mask[order] = True
    return mask & (scaled > -math.inf)


def kept_within(logits: ArrayLike, strategy: SamplingStrategy, slack: float = SLACK) -> tuple[Mask, Mask]:
    """Return the fewest and the most tokens that can be drawn if p and min-p are off by the slack."""
    fewest, most = strategy, strategy
    if strategy.top_p is not None and strategy.top_p < 1:
        fewest = replace(fewest, top_p=max(strategy.top_p - slack, 1e-300))
        most = replace(most, top_p=min(strategy.top_p + slack, 1.0))
    if strategy.min_p:
        fewest = replace(fewest, min_p=min(strategy.min_p * (1 + slack), 1.0))
        most = replace(most, min_p=strategy.min_p * (1 - slack))
    return kept(logits, fewest), kept(logits, most)


def probabilities(logits: ArrayLike, strategy: SamplingStrategy) -> Floats:
    """Return the distribution (V,) that a token is drawn from, given the adjusted logits."""
    values = np.asarray(logits, dtype=np.float64)
    if strategy.is_greedy:
        weights = np.zeros(len(values))
        weights[values.argmax()] = 1
        return weights
    weights = np.exp((values - values.max()) / strategy.temperature) * kept(values, strategy)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def log_softmax(logits: ArrayLike) -> Floats:
    """Return the log-probabilities of the model itself."""
    values = np.asarray(logits, dtype=np.float64)
    largest = values.max()
    return np.asarray(values - largest - np.log(np.exp(values - largest).sum()), dtype=np.float64)


class GoldenCase(NamedTuple):
    """Logits, a text and a strategy that transformers supports."""

    logits: NDArray[np.float32]
    prompt: list[int]
    generated: list[int]
    strategy: SamplingStrategy


GOLDEN_CASES = 300
GOLDEN_VOCABULARY = 96


def golden_cases() -> Iterator[GoldenCase]:
    """Return random cases, the same on every machine, without ties and with clear edges.

    Transformers keeps all tokens that tie with the k-th, and of ties at the nucleus' edge any: so
    no two logits are equal, and no cumulative probability is within 1e-4 of p.
    """
    stream = np.random.RandomState(3)
    made = 0
    while made < GOLDEN_CASES:
        scale = stream.choice([0.3, 1.0, 3.0])
        logits = (scale * stream.standard_normal(GOLDEN_VOCABULARY)).astype(np.float32)
        text = [int(token) for token in stream.randint(0, GOLDEN_VOCABULARY, 12)]
        strategy = SamplingStrategy(
            temperature=float(stream.choice([0.5, 0.7, 1.0, 1.5])),
            top_k=[None, 2, 5, 20, 95, 96, 500][stream.randint(7)],
            top_p=[None, 1e-8, 0.1, 0.5, 0.9, 0.99, 1.0][stream.randint(7)],
            min_p=[None, 0.0, 0.02, 0.1, 0.5][stream.randint(5)],
            repetition_penalty=float(stream.choice([1.0, 0.8, 1.3])),
        )
        case = GoldenCase(logits, text[:8], text[8:], strategy)
        values = adjusted(case.logits, strategy, case.prompt, case.generated)
        fewest, most = kept_within(values, strategy, 1e-4)
        if len(set(values)) == GOLDEN_VOCABULARY and (fewest == most).all():
            made += 1
            yield case
