"""Penalties on tokens that have occurred. Their memory does not depend on the length of the text.

Axes: V vocabulary, S capacity of the history.
"""

from collections.abc import Sequence

import mlx.core as mx

from metal_gen.sampling.strategy import SamplingStrategy


class TokenHistory:
    """The prompt and the new tokens of one text, on the device.

    Args:
        prompt: Token ids of the prompt.
        capacity: Maximum number of tokens, including the prompt's.
    """

    def __init__(self, prompt: Sequence[int], capacity: int) -> None:
        self._prompt_length = self._length = len(prompt)
        self._ids = mx.concatenate(
            [mx.array(list(prompt), mx.uint32), mx.zeros(capacity - len(prompt), mx.uint32)]
        )

    def append(self, tokens: mx.array) -> None:
        """Add tokens (N,), which need not be computed yet."""
        self._ids[self._length : self._length + tokens.size] = tokens
        self._length += tokens.size

    def take_back(self, count: int) -> None:
        """Take back the last tokens."""
        if not 0 <= count <= self._length - self._prompt_length:
            raise ValueError(f"cannot take back {count} of {self._length - self._prompt_length} tokens")
        self._length -= count

    def recent(self, window: int | None) -> mx.array:
        """Return the last tokens, prompt included: as many as the window holds, or all."""
        begin = 0 if window is None else max(0, self._length - window)
        return self._ids[begin : self._length]

    @property
    def generated(self) -> mx.array:
        """The new tokens."""
        return self._ids[self._prompt_length : self._length]


def penalize(logits: mx.array, strategy: SamplingStrategy, history: TokenHistory) -> mx.array:
    """Apply the repetition penalty, then the presence and frequency penalties.

    Each penalised logit is computed from the one it replaces. So a token that occurs several times is
    penalised once, except by the frequency penalty, which counts.

    Args:
        logits: Logits, (1, V) float32.
        strategy: Strategy with the penalties.
        history: Tokens that have occurred.

    Returns:
        Penalised logits, (1, V) float32.
    """
    if strategy.repetition_penalty != 1:
        ids = history.recent(strategy.repetition_window)
        found = logits[:, ids]
        penalty = strategy.repetition_penalty
        logits = _replace(logits, ids, mx.where(found > 0, found / penalty, found * penalty))
    generated = history.generated
    if (strategy.presence_penalty or strategy.frequency_penalty) and generated.size:
        counts = mx.zeros(logits.shape[-1]).at[generated].add(1.0)[generated]
        lowered = logits[:, generated] - strategy.presence_penalty - strategy.frequency_penalty * counts
        logits = _replace(logits, generated, lowered)
    return logits


def _replace(logits: mx.array, ids: mx.array, values: mx.array) -> mx.array:
    return mx.put_along_axis(logits, ids[None].astype(mx.int32), values, axis=-1)
