"""Rotary position embedding: its wavelengths, and how linear, dynamic and YaRN scaling stretch them.

Source: RoFormer (arXiv 2104.09864), YaRN (arXiv 2309.00071), and `modeling_rope_utils.py` of
Hugging Face transformers; results equal those of the last.
"""

import math
import sys
from functools import cached_property, lru_cache

import mlx.core as mx

from metal_gen.device.backend import runs_on_cuda
from metal_gen.models.config.rope import RopeConfig

# MLX's CUDA kernel takes a thread for each pair of numbers of a head and for 4 heads of a sequence. It rounds
# both counts down to powers of two that give at most 1,024 threads a block, and all of the second go to a
# block's third dimension, where CUDA allows 64. So narrow heads of many sequences do not start.
CUDA_HEADS_OF_A_THREAD, CUDA_BLOCK_THREADS, CUDA_BLOCK_DEPTH = 4, 1024, 64


class Rope:
    """Rotates queries and keys, or the first part of each, by their position.

    Args:
        config: Configuration of the embedding.
        head_dim: Size of a head.

    Attributes:
        rotated: Number of rotated numbers in each head.
    """

    def __init__(self, config: RopeConfig, head_dim: int) -> None:
        self.config = config
        self.head_dim = head_dim
        self.rotated = config.rotated_of(head_dim)
        self._periods = lru_cache(maxsize=4)(self._compute_periods)

    @property
    def attention_factor(self) -> float:
        """Factor on both queries and keys (YaRN's "temperature"); 1 for other types."""
        config = self.config
        if config.rope_type != "yarn":
            return 1.0
        if config.attention_factor is not None:
            return config.attention_factor
        if config.mscale and config.mscale_all_dim:
            return _mscale(config.factor, config.mscale) / _mscale(config.factor, config.mscale_all_dim)
        return _mscale(config.factor, 1.0)

    @property
    def score_factor(self) -> float:
        """Factor on the attention scores; it applies if whole heads are rotated."""
        return self.attention_factor**2 if self.rotated == self.head_dim else 1.0

    def periods(self, sequence_length: int) -> mx.array:
        """Return the positions per radian of each pair of dimensions.

        Args:
            sequence_length: Number of tokens including the new ones; only dynamic scaling uses it.

        Returns:
            (rotated / 2,) float32.
        """
        trained = self.config.original_max_position_embeddings
        dynamic = self.config.rope_type == "dynamic" and sequence_length > trained
        return self._periods(sequence_length if dynamic else trained)

    def __call__(self, x: mx.array, start: int | mx.array, periods: mx.array) -> mx.array:
        """Rotate x (B, H, L, D), whose first token is at position `start`."""
        most = self._most_sequences(x.shape[1])
        if isinstance(start, int) or len(x) <= most:
            turned = self._turned(x, start, periods)
        else:
            groups = [slice(begin, begin + most) for begin in range(0, len(x), most)]
            turned = mx.concatenate([self._turned(x[group], start[group], periods) for group in groups])
        return turned if self._factors is None else turned * self._factors.astype(x.dtype)

    def _turned(self, x: mx.array, start: int | mx.array, periods: mx.array) -> mx.array:
        return mx.fast.rope(
            x, self.rotated, traditional=False, base=None, scale=1.0, offset=start, freqs=periods
        )

    def _most_sequences(self, heads: int) -> int:
        """Return how many sequences with one token each MLX's kernel can rotate at once."""
        if self.rotated // 2 >= CUDA_BLOCK_THREADS // CUDA_BLOCK_DEPTH or not runs_on_cuda():
            return sys.maxsize
        # One more would be rounded down to the next power of two.
        return (2 * CUDA_BLOCK_DEPTH - 1) // -(-heads // CUDA_HEADS_OF_A_THREAD) or 1

    @cached_property
    def _factors(self) -> mx.array | None:
        """Attention factor of each number of a head, (D,); None if it is 1 or whole heads are rotated."""
        if self.rotated == self.head_dim or self.attention_factor == 1.0:
            return None
        left = self.head_dim - self.rotated
        return mx.array([self.attention_factor] * self.rotated + [1.0] * left)

    def _compute_periods(self, sequence_length: int) -> mx.array:
        config = self.config
        pairs = range(0, self.rotated, 2)
        theta = config.rope_theta
        if config.rope_type == "dynamic":
            growth = config.factor * sequence_length / config.original_max_position_embeddings
            theta *= (growth - (config.factor - 1)) ** (self.rotated / (self.rotated - 2))
        periods = [theta ** (pair / self.rotated) for pair in pairs]
        if config.rope_type == "linear":
            periods = [config.factor * period for period in periods]
        if config.rope_type == "yarn":
            periods = self._yarn(periods)
        return mx.array(periods, dtype=mx.float32)

    def _yarn(self, periods: list[float]) -> list[float]:
        """Keep short wavelengths, stretch long ones by the factor, and blend in between."""
        low, high = self._yarn_range()
        blended = []
        for index, period in enumerate(periods):
            stretched = min(max((index - low) / (high - low), 0.0), 1.0)
            frequency = stretched / (self.config.factor * period) + (1 - stretched) / period
            blended.append(1 / frequency)
        return blended

    def _yarn_range(self) -> tuple[float, float]:
        """Return indices of the pairs that turn `beta_fast` and `beta_slow` times in the trained length."""
        config = self.config

        def pair_that_turns(times: float) -> float:
            wavelength = config.original_max_position_embeddings / (times * 2 * math.pi)
            return self.rotated * math.log(wavelength) / (2 * math.log(config.rope_theta))

        low, high = pair_that_turns(config.beta_fast), pair_that_turns(config.beta_slow)
        if config.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.rotated - 1)
        return low, high + 0.001 if low == high else high


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
