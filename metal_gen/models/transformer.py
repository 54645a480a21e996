"""The decoder-only transformer: embedding, layers, final norm, head.

Defines the order of a forward pass. The families in this package only build a transformer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import mlx.core as mx

from metal_gen.cache.hybrid import HybridCache
from metal_gen.cache.kv_cache import KVCache
from metal_gen.models.attention import Attention, Part, Step
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels.heads import Heads
from metal_gen.models.kernels.next_attention import NextTokens
from metal_gen.models.layers import Linear, RMSNorm
from metal_gen.models.matrices.adapted import SingleMatrix
from metal_gen.models.rope import Rope


class Mixer(Protocol):
    """The part of a layer that mixes information between tokens: attention or linear attention."""

    def __call__(self, rows: mx.array, layer: int, step: Step) -> mx.array:
        """Map (R, hidden) to (R, hidden), over this layer's part of the cache."""
        ...


class MLP(Protocol):
    """The part of a layer that works on each token separately."""

    def __call__(self, rows: mx.array) -> mx.array:
        """Map (R, hidden) to (R, hidden)."""
        ...


@dataclass(frozen=True)
class DecoderLayer:
    """Attention and MLP. The input of each is normalized, and its output is added to the input."""

    attention_norm: RMSNorm
    attention: Mixer
    mlp_norm: RMSNorm
    mlp: MLP

    def __call__(
        self, rows: mx.array, normed: mx.array, layer: int, step: Step, following: RMSNorm
    ) -> tuple[mx.array, mx.array]:
        """Run the layer up to the norm that follows it.

        Args:
            rows: Hidden states, (R, hidden).
            normed: The same after this layer's `attention_norm`.
            layer: Place of this layer's part of the cache.
            step: The pass.
            following: Norm of what comes next: another layer, or the head.

        Returns:
            Hidden states after the layer, and the same after the norm that follows, (R, hidden) each.
        """
        rows, normed = self.mlp_norm.of_sum(rows, self.attention(normed, layer, step))
        step.end_stage(rows)
        rows, normed = following.of_sum(rows, self.mlp(normed))
        step.end_stage(rows)
        return rows, normed


@dataclass(frozen=True)
class Transformer:
    """A model with its weights.

    Attributes:
        embedding: Token embeddings, (V, hidden).
        head: Maps hidden states to logits; shares `embedding` if the checkpoint ties them.
    """

    config: ModelConfig
    embedding: SingleMatrix
    rope: Rope
    layers: tuple[DecoderLayer, ...]
    norm: RMSNorm
    head: Linear

    def __call__(
        self,
        tokens: mx.array,
        cache: KVCache,
        *,
        sequence_length: int | None = None,
        is_step: bool = False,
        in_layers: bool = False,
    ) -> mx.array:
        """Run new tokens through all layers and add them to the cache.

        Args:
            tokens: Token ids that follow those in the cache, (B, L).
            cache: Cache with this model's layers, heads and head size.
            sequence_length: Length of the whole prompt, if these tokens are a part of it and more
                follow; default: the number of tokens in the cache after this pass.
            is_step: These are single tokens, and the result will be computed before another pass is built: a
                kernel may write to the cache, of which MLX does not know.
            in_layers: Compute each layer before the next is built: Python handles a signal in between.

        Returns:
            Normalized hidden states, ready for `logits`, (B, L, hidden).

        Raises:
            CacheOverflowError: The tokens do not fit. Nothing was written.
        """
        batch, length = tokens.shape
        cache.claim(length)
        if not is_step:
            cache.settle()
        step = Step(
            cache=cache,
            batch=batch,
            length=length,
            offset=cache.start,
            periods=self.rope.periods(sequence_length or cache.position),
            parts=[Part.causal(cache.start, length, self.config.sliding_window)],
            states=cache if isinstance(cache, HybridCache) else None,
            nexts=self._nexts(cache, batch) if is_step else None,
            in_layers=in_layers,
        )
        return self.run(tokens.reshape(-1), step).reshape(batch, length, -1)

    def run(self, tokens: mx.array, step: Step) -> mx.array:
        """Run the tokens (R,) of a pass through all layers and return hidden states, (R, hidden)."""
        rows = self.embedding.take(tokens)
        normed = self.layers[0].attention_norm(rows)
        for place, layer, norm in zip(self._places, self.layers, self._following_norms, strict=True):
            rows, normed = layer(rows, normed, place, step, norm)
            step.end_layer(rows, normed)
        return normed

    def next_tokens(
        self,
        positions: mx.array,
        length: int,
        buffers: Sequence[mx.array],
        *,
        is_one_text: bool = False,
    ) -> NextTokens | None:
        """Return new tokens for the kernel, or None if none computes their attention.

        Args:
            positions: Position of the new token of each sequence, or of each token, (B,).
            length: Upper limit of the positions to attend to.
            buffers: Buffers of the cache.
            is_one_text: The tokens are successive tokens of one text.
        """
        if (heads := self._heads) is None:
            return None
        return NextTokens.of(heads, positions, length, buffers, is_one_text=is_one_text)

    def _nexts(self, cache: KVCache, batch: int) -> NextTokens | None:
        positions = mx.array([cache.start] * batch, mx.int32)
        return self.next_tokens(positions, cache.position, cache.buffers)

    @property
    def has_kernel(self) -> bool:
        """Whether a kernel computes the attention of new tokens, and writes to the cache."""
        return self._heads is not None

    @cached_property
    def _heads(self) -> Heads | None:
        kernels = [layer.attention.kernel for layer in self.layers if isinstance(layer.attention, Attention)]
        return kernels[0].heads if kernels and kernels[0] is not None else None

    @cached_property
    def _following_norms(self) -> list[RMSNorm]:
        """The norm that follows each layer: that of the next one, or the last."""
        return [*(layer.attention_norm for layer in self.layers[1:]), self.norm]

    @cached_property
    def _places(self) -> list[int]:
        """Index of each layer among the layers that use the same kind of cache."""
        is_linear = [kind == "linear_attention" for kind in self.config.layer_types]
        return [is_linear[:index].count(kind) for index, kind in enumerate(is_linear)]

    def logits(self, hidden: mx.array) -> mx.array:
        """Return the score of every token of the vocabulary: (..., hidden) to (..., V)."""
        scores = self.head(hidden.reshape(-1, hidden.shape[-1]))
        return scores.reshape(*hidden.shape[:-1], -1)
