"""Names of stored prefixes, from the model that computed them and their tokens."""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlx.core as mx

from metal_gen.cache.config import KVCacheConfig
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.device.backend import device_name
from metal_gen.device.blas import blas_in_use

# Increased whenever the file format changes.
FORMAT = 2
# Tokens per block; prefixes are stored in whole blocks.
BLOCK = 64
HASH_BYTES = 16
ID_BYTES = 4


def model_key(
    checkpoint: Checkpoint, dtype: str, cache: KVCacheConfig, chunk_size: int, *, in_slots: bool = False
) -> str:
    """Return a hash of everything except the tokens that the stored arrays depend on.

    That is the weights, adapters, dtypes, the config of the model with its rope scaling, the size of a chunk,
    the device and the BLAS. The weights are known by their headers, and by sizes and times of their files. A
    file in the Hub cache is known by the name of its blob, which is a hash of its content.

    Args:
        checkpoint: The opened checkpoint.
        dtype: Dtype that the model computes in.
        cache: Size of the cache; its capacity does not matter.
        chunk_size: Number of prompt tokens computed at once.
        in_slots: Whether the slots of a batch compute it, each row of a product by itself.
    """
    weights = checkpoint.weights
    tensors = sorted(
        (name, info.dtype, info.shape, info.offset, info.path.name) for name, info in weights.sources.items()
    )
    files = sorted({info.path for info in weights.sources.values()})
    config = checkpoint.folder / "config.json"
    files += [config] if config.is_file() else []
    parts = (
        FORMAT,
        tensors,
        [_content_of(file) for file in files],
        [(adapter.scale, *map(_content_of, adapter.files)) for adapter in weights.adapters],
        checkpoint.config,
        checkpoint.packing,
        (dtype, cache.dtype, chunk_size, in_slots),
        (device_name(), str(mx.default_device()), str(blas_in_use())),
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=HASH_BYTES).hexdigest()


def _content_of(file: Path) -> tuple[object, ...]:
    target = file.resolve()
    status = target.stat()
    if target != file and target.parent.name == "blobs":
        return target.name, status.st_size
    return str(target), status.st_size, status.st_mtime_ns


def block_hashes(ids: Sequence[int]) -> list[bytes]:
    """Return one hash for each whole block of tokens; each depends on all blocks up to its own."""
    return list(_chained(ids))


def _chained(ids: Sequence[int]) -> Iterator[bytes]:
    last = b""
    written = memoryview(struct.pack(f"<{len(ids)}I", *ids))
    for end in range(BLOCK * ID_BYTES, len(written) + 1, BLOCK * ID_BYTES):
        block = written[end - BLOCK * ID_BYTES : end]
        last = hashlib.blake2b(last + block, digest_size=HASH_BYTES).digest()
        yield last
