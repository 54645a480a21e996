"""The sizes of caches: of keys and values, and of a hybrid's states.

Axes: T taps of the convolution, C channels, H heads, V size of a value, K size of a key.
"""

import math
from dataclasses import dataclass

from metal_gen.cache.forms import CACHE_DTYPES, PACKED, can_pack, head_bytes
from metal_gen.device.backend import DTYPE_BYTES
from metal_gen.errors import DoesNotFitError

# Marks of a single text, and beginnings of prompts that slots share, whose states are kept.
MOST_MARKS, MOST_BEGINNINGS = 2, 4


@dataclass(frozen=True, kw_only=True)
class KVCacheConfig:
    """The size of a cache.

    Args:
        num_layers: Number of decoder layers.
        num_kv_heads: Number of key/value heads of a layer (there may be more query heads).
        head_dim: Size of one head.
        max_seq_len: Capacity in tokens, for prompt and new text together.
        batch_size: Number of sequences held side by side.
        dtype: `float32`, `float16`, `bfloat16` or `q8`, for 8 bits.

    Raises:
        DoesNotFitError: A size is below 1, the dtype is not one of these, or heads have no 8-bit form.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    max_seq_len: int = 2048
    batch_size: int = 1
    dtype: str = "float16"

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_kv_heads", "head_dim", "max_seq_len", "batch_size"):
            if getattr(self, name) < 1:
                raise DoesNotFitError(f"the cache cannot have {name} below 1: {getattr(self, name)}")
        if self.dtype not in CACHE_DTYPES:
            raise DoesNotFitError(
                f"the cache cannot have dtype {self.dtype!r}", f"choose one of {', '.join(CACHE_DTYPES)}"
            )
        if self.dtype == PACKED and not can_pack(self.head_dim):
            raise DoesNotFitError(f"heads of {self.head_dim} numbers have no form in 8 bits")

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one position of every sequence, over all layers."""
        per_head = head_bytes(self.head_dim, self.dtype)
        return self.num_layers * 2 * self.batch_size * self.num_kv_heads * per_head

    @property
    def float_dtype(self) -> str:
        """Dtype of what is not in 8 bits."""
        return "float32" if self.dtype == PACKED else self.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers: layers x 2 x B x H x S x bytes of a head."""
        return self.bytes_per_token * self.max_seq_len


@dataclass(frozen=True, kw_only=True)
class HybridCacheConfig(KVCacheConfig):
    """The size of a hybrid cache; `num_layers` counts the layers with keys and values.

    Args:
        num_linear_layers: Number of layers with linear attention.
        conv_state: Shape of a convolution state, (T - 1, C), in the dtype of the cache, or in float32 where
            that has 8 bits.
        memory: Shape of a memory, (H, V, K), in float32.
        recent_passes: Number of last passes of a single text that can be taken back one by one.
        most_replayed: Number of tokens of a pass, at most, for it to be taken back in part.
    """

    num_linear_layers: int
    conv_state: tuple[int, int]
    memory: tuple[int, int, int]
    recent_passes: int = 1
    most_replayed: int = 0

    @property
    def state_nbytes(self) -> int:
        """Bytes of the states of one sequence at one moment."""
        conv = math.prod(self.conv_state) * DTYPE_BYTES[self.float_dtype]
        return self.num_linear_layers * (conv + math.prod(self.memory) * DTYPE_BYTES["float32"])

    @property
    def num_states(self) -> int:
        """Number of kept states: now and before the last passes, computed again, and marks or beginnings."""
        replayed = 1 if self.most_replayed else 0
        return 2 * self.batch_size + self.recent_passes - 1 + replayed + self.num_beginnings

    @property
    def num_beginnings(self) -> int:
        """Most marks of a single text, or beginnings that slots share."""
        return min(max(MOST_MARKS, self.batch_size), MOST_BEGINNINGS)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, of all states, and of what states are computed from again."""
        return super().nbytes + self.num_states * self.state_nbytes + self.replay_nbytes

    @property
    def replay_nbytes(self) -> int:
        """Bytes from which states are computed again: inputs of the convolution, and heads."""
        if not self.most_replayed:
            return 0
        rows = self.most_replayed + self.conv_state[0]
        return 3 * self.num_linear_layers * rows * self.conv_state[1] * DTYPE_BYTES["float32"]
