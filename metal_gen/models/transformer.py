"""The decoder-only transformer: embedding, layers, final norm, head.

Owns the order of a forward pass. The families in this package only build one.
"""

from dataclasses import dataclass

import mlx.core as mx

from metal_gen.kv_cache import KVCache
from metal_gen.models.config import ModelConfig
from metal_gen.models.layers import DecoderLayer, Linear, Part, RMSNorm, Step
from metal_gen.models.masks import sliding_window_mask
from metal_gen.models.rope import Rope


@dataclass(frozen=True)
class Transformer:
    """A model with its weights.

    Attributes:
        embedding: (V, hidden).
        head: Maps hidden states to logits; shares `embedding` where the checkpoint ties them.
    """

    config: ModelConfig
    embedding: mx.array
    rope: Rope
    layers: tuple[DecoderLayer, ...]
    norm: RMSNorm
    head: Linear

    def __call__(self, tokens: mx.array, cache: KVCache, *, sequence_length: int | None = None) -> mx.array:
        """Run new tokens through all layers and add them to the cache.

        Args:
            tokens: (B, L) token ids that follow what is in the cache.
            cache: Of this model's layers, heads and head size.
            sequence_length: Length of the prompt that these tokens are a part of, where more of
                it follows; by default what the cache holds after this pass.

        Returns:
            (B, L, hidden): the normalised hidden states, ready for `logits`.

        Raises:
            CacheOverflowError: The tokens do not fit; nothing was written.
        """
        batch, length = tokens.shape
        cache.claim(length)
        mask = "causal" if length > 1 else None
        window = self.config.sliding_window
        window_mask = sliding_window_mask(cache.start, length, window) if window else None
        step = Step(
            cache=cache,
            batch=batch,
            length=length,
            offset=cache.start,
            periods=self.rope.periods(sequence_length or cache.position),
            parts=[
                Part(
                    mask,
                    sliding_mask=mask if window_mask is None else window_mask,
                    last_keys=window if window_mask is None else None,
                )
            ],
        )
        return self.run(tokens.reshape(-1), step).reshape(batch, length, -1)

    def run(self, tokens: mx.array, step: Step) -> mx.array:
        """Run the tokens (R,) of a pass through all layers, to hidden states (R, hidden)."""
        rows = self.embedding[tokens]
        for index, layer in enumerate(self.layers):
            rows = layer(rows, index, step)
        return self.norm(rows)

    def logits(self, hidden: mx.array) -> mx.array:
        """Score every token of the vocabulary: (..., hidden) to (..., V)."""
        scores = self.head(hidden.reshape(-1, hidden.shape[-1]))
        return scores.reshape(*hidden.shape[:-1], -1)
