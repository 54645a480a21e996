"""How much memory a run will take, from headers and settings alone, and whether it is there."""

from dataclasses import dataclass, replace
from typing import Any

from metal_gen.backend import DTYPE_BYTES, runs_on_cpu
from metal_gen.byte_sizes import format_bytes
from metal_gen.errors import DoesNotFitError
from metal_gen.kv_cache import KVCacheConfig
from metal_gen.models.config import ModelConfig

# Head sizes for which MLX's GPU kernels keep attention scores out of memory.
FUSED_HEAD_DIMS = (64, 80, 128)
SAMPLING_ARRAYS = 6
# Enough to keep a GPU busy.
GPU_LAYERS_AHEAD = 4


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a run takes.

    Attributes:
        model: Its sizes.
        dtype: What is computed in.
        weights_bytes: The weights in that dtype.
        loading_bytes: The most that reading them takes, before there is a cache.
        cache: The key/value cache.
        chunk_size: Prompt tokens computed at once.
        available_bytes: What the device has left; 0 where that is not known.
    """

    model: ModelConfig
    dtype: str
    weights_bytes: int
    loading_bytes: int
    cache: KVCacheConfig
    chunk_size: int
    available_bytes: int

    @property
    def working_bytes(self) -> int:
        """Estimate of the intermediate results alive at one time, at their most.

        That is in the last chunk of a prompt that fills the cache, in one layer and, on a GPU, in
        those that it has been handed ahead. Sampling needs a few arrays over the vocabulary.
        """
        tokens = self._most_tokens
        mask = tokens * self.cache.max_seq_len
        prefill = self._layer_bytes + (self.ahead_bytes or 0) + mask
        sampling = SAMPLING_ARRAYS * self.cache.batch_size * self.model.vocab_size * DTYPE_BYTES["float32"]
        return max(prefill, sampling)

    @property
    def ahead_bytes(self) -> int | None:
        """What prefill may take for layers that a GPU has been handed ahead; None on a CPU.

        MLX hands a GPU hundreds of operations ahead, whose memory is all taken at once, and a CPU
        less than a layer.
        """
        return None if runs_on_cpu() else GPU_LAYERS_AHEAD * self._layer_bytes

    @property
    def _most_tokens(self) -> int:
        """Tokens of one pass: of prompts, and one of each other text."""
        slots = self.cache.batch_size
        return min(self.chunk_size, slots * self.cache.max_seq_len) + slots - 1

    @property
    def _layer_bytes(self) -> int:
        """One layer's attention and MLP overlap, because MLX allocates ahead of what is computed."""
        model = self.model
        tokens = self._most_tokens
        heads = 3 * model.num_attention_heads + 2 * model.num_key_value_heads
        width = heads * model.head_dim + 5 * model.intermediate_size + 3 * model.hidden_size
        scores = 0
        if runs_on_cpu() or model.head_dim not in FUSED_HEAD_DIMS:
            scores = model.num_attention_heads * tokens * self.cache.max_seq_len
        return (tokens * width + scores) * DTYPE_BYTES[self.dtype]

    @property
    def total_bytes(self) -> int:
        """The most that will be taken at one time."""
        return max(self.loading_bytes, self.weights_bytes + self.cache.nbytes + self.working_bytes)

    @property
    def fits(self) -> bool:
        """Whether the device has as much, as far as that is known."""
        return not self.available_bytes or self.total_bytes <= self.available_bytes

    def with_slots(self, most: int) -> "MemoryPlan":
        """The same plan with as many slots, up to `most`, as fit; one where none do."""
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.with_cache(batch_size=middle).fits else (low, middle - 1)
        return self.with_cache(batch_size=low)

    def with_cache(self, **changes: Any) -> "MemoryPlan":
        """The same plan with another cache; `changes` are fields of `KVCacheConfig`."""
        return replace(self, cache=replace(self.cache, **changes))

    def require_fit(self) -> None:
        """Refuse a run that memory cannot hold.

        Raises:
            DoesNotFitError: With the numbers and the key to change.
        """
        if self.fits:
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
        if (slots := self.cache.batch_size) > 1 and (fewer := self.with_slots(slots)).fits:
            most = fewer.cache.batch_size
            hint = f"set batch_size under [cache] to at most {most} (--batch-size {most})"
        elif longest := self.longest_fit():
            hint = f"set max_seq_len under [cache] to at most {longest} (--max-seq-len {longest})"
        else:
            hint = "no cache at all would fit beside the weights: choose a smaller checkpoint"
        raise DoesNotFitError(message, hint)

    def longest_fit(self, most: int | None = None) -> int:
        """The largest `max_seq_len`, up to `most` or this plan's, that fits; 0 where none does."""
        low, high = 0, self.cache.max_seq_len if most is None else most
        while low < high:
            middle = (low + high + 1) // 2
            if self.with_cache(max_seq_len=middle).fits:
                low = middle
            else:
                high = middle - 1
        return low
