"""How much memory a run will take, from headers and settings alone, and whether it is there."""

from dataclasses import dataclass, replace
from typing import Any

from metal_gen.byte_sizes import format_bytes
from metal_gen.cache.kv_cache import KVCacheConfig
from metal_gen.errors import DoesNotFitError
from metal_gen.generation.working_memory import WorkingMemory
from metal_gen.models.config.model_config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a run takes.

    Attributes:
        model: Its sizes.
        dtype: What is computed in.
        weights_bytes: The weights in that dtype.
        weights_read_bytes: Of them, what one step from a token to the next reads.
        loading_bytes: The most that reading them takes, before there is a cache.
        cache: The key/value cache.
        chunk_size: Prompt tokens computed at once.
        available_bytes: What the device has left; 0 where that is not known.
        has_products_apart: Results of products are joined or added, for which both are there at once.
        has_head_norms: Queries and keys are normalised.
    """

    model: ModelConfig
    dtype: str
    weights_bytes: int
    weights_read_bytes: int
    loading_bytes: int
    cache: KVCacheConfig
    chunk_size: int
    available_bytes: int
    has_products_apart: bool = False
    has_head_norms: bool = True

    @property
    def working_bytes(self) -> int:
        """Estimate of the intermediate results alive at one time, at their most."""
        return self._working.nbytes

    @property
    def ahead_bytes(self) -> int | None:
        """What prefill may take for what a GPU has been handed ahead; None on a CPU."""
        return self._working.ahead_bytes

    @property
    def _working(self) -> WorkingMemory:
        slots, capacity = self.cache.batch_size, self.cache.max_seq_len
        return WorkingMemory(
            model=self.model,
            dtype=self.dtype,
            # Of prompts, and one of each other text.
            tokens=min(self.chunk_size, slots * capacity) + slots - 1,
            capacity=capacity,
            texts=slots,
            has_products_apart=self.has_products_apart,
            has_head_norms=self.has_head_norms,
        )

    @property
    def total_bytes(self) -> int:
        """The most that will be taken at one time."""
        return max(self.loading_bytes, self.running_bytes)

    @property
    def running_bytes(self) -> int:
        """Weights, cache and working memory together."""
        return self.weights_bytes + self.cache.nbytes + self.working_bytes

    @property
    def is_loading_more(self) -> bool:
        """Whether reading the weights takes more than all that comes later."""
        return self.loading_bytes > self.running_bytes

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
        if self.loading_bytes > self.available_bytes >= self.weights_bytes:
            what = f"to read the weights, which take {format_bytes(self.weights_bytes)} afterwards"
            hint = "choose a smaller checkpoint, or one that is stored in the form that is computed with"
            raise DoesNotFitError(self._shortage(self.loading_bytes, what), hint)
        parts = {
            "weights": self.weights_bytes,
            "cache": self.cache.nbytes,
            "working memory": self.working_bytes,
        }
        what = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items())
        message = self._shortage(self.running_bytes, what)
        if (slots := self.cache.batch_size) > 1 and (fewer := self.with_slots(slots)).fits:
            most = fewer.cache.batch_size
            hint = f"set batch_size under [cache] to at most {most} (--batch-size {most})"
        elif longest := self.longest_fit(min(self.cache.max_seq_len, self.model.context_length)):
            hint = f"set max_seq_len under [cache] to at most {longest} (--max-seq-len {longest})"
        else:
            hint = "the weights alone leave no room for a cache: use a smaller or a quantized model"
        raise DoesNotFitError(message, hint)

    def _shortage(self, needed_bytes: int, what: str) -> str:
        needed, available = format_bytes(needed_bytes), format_bytes(self.available_bytes)
        return f"{needed} of memory are needed and {available} are available: {what}"

    @property
    def largest_max_seq_len(self) -> int:
        """The most tokens that the model was trained for and memory holds; 0 where none fit."""
        return self.longest_fit(self.model.context_length)

    @property
    def most_tokens(self) -> int:
        """More tokens than this no text has, in this cache or in another one."""
        return max(self.cache.max_seq_len, self.largest_max_seq_len)

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
