"""Attention of new tokens, one per sequence or all of one text, by a kernel.

Axes: as in `attend`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.device.device_memory import in_device_memory
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels.attend import Job, attend
from metal_gen.models.kernels.heads import Heads


@dataclass(frozen=True)
class NextTokens:
    """New tokens, one of each sequence of a cache or all of one, whose keys and values a kernel writes.

    Attributes:
        positions: Position of each token, at least (B,), int32.
        job: How to attend to the cache.
        buffers: Buffers of the cache: keys and values of each layer in turn.
    """

    positions: mx.array
    job: Job
    buffers: Sequence[mx.array]

    @classmethod
    def of(
        cls,
        heads: Heads,
        positions: mx.array,
        length: int,
        buffers: Sequence[mx.array],
        *,
        is_one_text: bool = False,
    ) -> "NextTokens":
        """Return new tokens at these positions.

        Args:
            heads: Heads of the model.
            positions: Position of each token, (B,).
            length: Upper limit of the positions to attend to.
            buffers: Buffers of the cache.
            is_one_text: The tokens are successive tokens of one text.
        """
        stretches = heads.stretches(length, positions.shape[0])
        job = Job.of(stretches, is_one_text=is_one_text)
        return cls(in_device_memory(positions.astype(mx.int32)), job, buffers)

    def of_layer(self, layer: int) -> Sequence[mx.array]:
        """Return the keys and values of a layer."""
        return self.buffers[2 * layer : 2 * layer + 2]


@dataclass(frozen=True)
class NextAttention:
    """The attention of a layer, between its projections, for one new token of each sequence.

    Args:
        heads: The heads.
        weights: Norm weights of queries and keys, (D,) each; anything without a norm.
        factors: Constant of the norm, and factor of the scores, with log2(e), float32.
    """

    heads: Heads
    weights: tuple[mx.array, mx.array]
    factors: mx.array

    def __call__(self, rows: mx.array, periods: mx.array, nexts: NextTokens, layer: int) -> mx.array:
        """Map projections (B, X) to (B, H D), and write this layer's part of the cache."""
        return attend(
            self.heads,
            rows,
            self.weights,
            self.factors,
            periods,
            nexts.positions,
            nexts.job,
            nexts.of_layer(layer),
        )


def score_factor(scale: float) -> float:
    """Return the factor of scores whose exponentials have base 2."""
    return scale * math.log2(math.e)


def heads_of(config: ModelConfig, *, normed: bool, sliding: bool = False) -> Heads:
    """Return the heads of a model's layers of full attention, or of its sliding ones."""
    return Heads(
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        rotated=config.rope.rotated_of(config.head_dim),
        gated=config.linear is not None,
        normed=normed,
        window=config.sliding_window if sliding else None,
    )
