"""How much memory a run will take, from headers and settings alone, and whether it is there."""

from dataclasses import dataclass

from metal_gen.backend import DTYPE_BYTES, runs_on_cpu
from metal_gen.checkpoint.weights import WeightFiles
from metal_gen.errors import DoesNotFitError
from metal_gen.kv_cache import KVCacheConfig
from metal_gen.models.config import ModelConfig

MIB = 2**20
GIB = 2**30


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes, in bytes.

    Attributes:
        weights_bytes: The weights, in the dtype they are computed in.
        cache: The key/value cache.
        working_bytes: The largest intermediate results of prefill and sampling.
        available_bytes: What the device has left; 0 where that is not known.
    """

    weights_bytes: int
    cache: KVCacheConfig
    working_bytes: int
    available_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights, cache and working memory together."""
        return self.weights_bytes + self.cache.nbytes + self.working_bytes

    def require_fit(self) -> None:
        """Refuse a run that memory cannot hold.

        Raises:
            DoesNotFitError: With the numbers and the key to change.
        """
        if not self.available_bytes or self.total_bytes <= self.available_bytes:
            return
        parts = {
            "weights": self.weights_bytes,
            "cache": self.cache.nbytes,
            "working memory": self.working_bytes,
        }
        message = (
            f"{format_bytes(self.total_bytes)} of memory are needed and "
            f"{format_bytes(self.available_bytes)} are available: "
            + ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items())
        )
        room = self.available_bytes - self.weights_bytes - self.working_bytes
        longest = room // self.cache.bytes_per_token
        if longest >= 1:
            hint = f"set max_seq_len under [cache] to at most {longest} (--max-seq-len {longest})"
        else:
            hint = "the weights alone leave no room for a cache: choose a smaller checkpoint"
        raise DoesNotFitError(message, hint)


def plan_memory(
    weights: WeightFiles, cache: KVCacheConfig, *, dtype: str, chunk_size: int, available_bytes: int
) -> MemoryPlan:
    """Add up what a run will take.

    Args:
        weights: Known by their headers.
        cache: As it will be allocated.
        dtype: What weights are computed in.
        chunk_size: Prompt tokens computed at once.
        available_bytes: What there is; 0 when unknown.
    """
    return MemoryPlan(
        weights_bytes=weights.num_parameters * DTYPE_BYTES[dtype],
        cache=cache,
        working_bytes=working_bytes(weights.config, cache, dtype=dtype, chunk_size=chunk_size),
        available_bytes=available_bytes,
    )


def working_bytes(config: ModelConfig, cache: KVCacheConfig, *, dtype: str, chunk_size: int) -> int:
    """Estimate the largest set of intermediate results alive at one time.

    That is either the last layer's MLP or attention in the last chunk of a full prompt, or the
    sampler's arrays over the vocabulary. On the CPU, attention scores are arrays of their own;
    GPU kernels keep them in registers.
    """
    tokens = min(chunk_size, cache.max_seq_len)
    size = DTYPE_BYTES[dtype]
    hidden = tokens * config.hidden_size * size
    mlp = 4 * tokens * config.intermediate_size * size + 2 * hidden
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    attention = 2 * tokens * heads * config.head_dim * size + 2 * hidden
    if runs_on_cpu():
        attention += 2 * config.num_attention_heads * tokens * cache.max_seq_len * size
    sampling = 6 * config.vocab_size * 4
    return max(mlp, attention, sampling)


def format_bytes(count: int) -> str:
    """Bytes as a person reads them: `24.0 MiB`, `1.2 GiB`."""
    if count >= GIB:
        return f"{count / GIB:.2f} GiB"
    return f"{count / MIB:.1f} MiB"
