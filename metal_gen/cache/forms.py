"""The forms in which a cache holds keys and values: as they are, or packed in 8 bits.

Whatever the form, a buffer is (B, H', S, X), so that positions are written, copied and stored alike.

Axes: B sequences, H key/value heads, L new tokens, S positions, D head size.
"""

from collections.abc import Sequence
from typing import Protocol

import mlx.core as mx

from metal_gen.cache.packed_heads import BITS, GROUP_SIZE, NUMBERS_IN_A_WORD, PackedHeads
from metal_gen.device.backend import DTYPE_BYTES, dtype_named

PACKED = "q8"
CACHE_DTYPES = (*DTYPE_BYTES, PACKED)
Heads = mx.array | PackedHeads


class CacheForm(Protocol):
    """How keys and values of a layer are held.

    Attributes:
        names: Names of a layer's buffers.
    """

    names: tuple[str, ...]

    def buffers(self, batch: int, length: int) -> list[tuple[tuple[int, int, int, int], mx.Dtype]]:
        """Return shape and dtype of each of a layer's buffers."""
        ...

    def encode(self, keys: mx.array, values: mx.array) -> Sequence[mx.array]:
        """Return what to write to each buffer for new keys and values, (B, H, L, D) each."""
        ...

    def decode(self, arrays: Sequence[mx.array]) -> tuple[Heads, Heads]:
        """Return the keys and values that parts of the buffers hold."""
        ...


class PlainForm:
    """Keys in one buffer and values in another. Arguments are those of `KVCacheConfig`."""

    names: tuple[str, ...] = ("keys", "values")

    def __init__(self, num_kv_heads: int, head_dim: int, dtype: str) -> None:
        self._heads, self._size = num_kv_heads, head_dim
        self._dtype = dtype_named(dtype)

    def buffers(self, batch: int, length: int) -> list[tuple[tuple[int, int, int, int], mx.Dtype]]:
        """See `CacheForm`."""
        return [((batch, self._heads, length, self._size), self._dtype)] * 2

    def encode(self, keys: mx.array, values: mx.array) -> Sequence[mx.array]:
        """See `CacheForm`."""
        return keys.astype(self._dtype), values.astype(self._dtype)

    def decode(self, arrays: Sequence[mx.array]) -> tuple[Heads, Heads]:
        """See `CacheForm`."""
        keys, values = arrays
        return keys, values


class PackedForm:
    """Keys and values side by side as heads, in 8 bits: numbers, scales and biases.

    Arguments are those of `KVCacheConfig`.
    """

    names: tuple[str, ...] = ("numbers", "scales", "biases")

    def __init__(self, num_kv_heads: int, head_dim: int) -> None:
        self._heads, self._size = num_kv_heads, head_dim

    def buffers(self, batch: int, length: int) -> list[tuple[tuple[int, int, int, int], mx.Dtype]]:
        """See `CacheForm`."""
        words, groups = self._size // NUMBERS_IN_A_WORD, self._size // GROUP_SIZE
        outer = (batch, 2 * self._heads, length)
        return [((*outer, words), mx.uint32), *[((*outer, groups), mx.float32)] * 2]

    def encode(self, keys: mx.array, values: mx.array) -> Sequence[mx.array]:
        """See `CacheForm`."""
        heads = mx.concatenate([keys, values], axis=1).astype(mx.float32)
        return mx.quantize(heads, group_size=GROUP_SIZE, bits=BITS)

    def decode(self, arrays: Sequence[mx.array]) -> tuple[PackedHeads, PackedHeads]:
        """See `CacheForm`."""
        numbers, scales, biases = arrays
        whole, middle = PackedHeads(numbers, scales, biases), self._heads
        return whole[:, :middle, :], whole[:, middle:, :]


def head_bytes(head_dim: int, dtype: str) -> int:
    """Return the bytes that a form takes for one head at one position."""
    if dtype == PACKED:
        return head_dim * BITS // 8 + head_dim // GROUP_SIZE * 2 * DTYPE_BYTES["float32"]
    return head_dim * DTYPE_BYTES[dtype]


def can_pack(head_dim: int) -> bool:
    """Return whether heads of this size can be packed in 8 bits."""
    return head_dim % GROUP_SIZE == 0
