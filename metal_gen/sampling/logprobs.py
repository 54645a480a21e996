"""Log-probabilities of a token: under the model, and under the distribution that it was drawn from.

Axes: V vocabulary, C candidates.
"""

from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx

from metal_gen.sampling import blocks


class LogprobArrays(NamedTuple):
    """Log-probabilities on the device.

    Attributes:
        model: Log-probability of the token under the softmax of the model's logits, (1,).
        sampling: Log-probability of the token under the distribution it was drawn from, after penalties,
            bias, temperature and truncation, (1,).
        top_ids: Ids of the model's most probable tokens, (K,).
        top_model: Their log-probabilities under the model, (K,).
    """

    model: mx.array
    sampling: mx.array
    top_ids: mx.array
    top_model: mx.array


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural log-probabilities of one token; see `LogprobArrays`."""

    model_logprob: float
    sampling_logprob: float
    top_model_logprobs: tuple[tuple[int, float], ...]


def token_logprobs(
    logits: mx.array, token: mx.array, weights: tuple[mx.array, mx.array | None] | None, top: int
) -> LogprobArrays:
    """Start to compute a token's log-probabilities.

    Args:
        logits: The model's logits, (1, V).
        token: Id of the token, (1,).
        weights: Weights that it was drawn from, (1, C), and their ids (None for all); None if greedy.
        top: Number of most probable tokens to add.
    """
    logits = logits.astype(mx.float32)
    normalizer = mx.logsumexp(logits, axis=-1)
    model = logits[0, token] - normalizer
    sampling = mx.zeros(1)
    if weights is not None:
        values, ids = weights
        chosen = values[0, token] if ids is None else (values * (ids == token)).sum(axis=-1)
        sampling = mx.log(chosen) - mx.log(values.sum(axis=-1))
    few = blocks.few_largest(logits, top)
    order = mx.argsort(-few.logits, axis=-1)[0, :top]
    top_ids = order if few.ids is None else few.ids[0, order]
    return LogprobArrays(model, sampling, top_ids, few.logits[0, order] - normalizer)


def read_logprobs(arrays: LogprobArrays) -> TokenLogprobs:
    """Read log-probabilities from the device."""
    ids: list[int] = arrays.top_ids.tolist()  # type: ignore[assignment]
    values: list[float] = arrays.top_model.tolist()  # type: ignore[assignment]
    return TokenLogprobs(
        model_logprob=float(arrays.model.item()),  # type: ignore[arg-type]
        sampling_logprob=float(arrays.sampling.item()),  # type: ignore[arg-type]
        top_model_logprobs=tuple(zip(ids, values, strict=True)),
    )
