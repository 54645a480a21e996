"""Computes how much memory a run takes, from headers and settings alone, and whether it fits."""

from dataclasses import dataclass, replace
from typing import Any

from metal_gen.byte_sizes import format_bytes
from metal_gen.cache.config import HybridCacheConfig, KVCacheConfig
from metal_gen.cache.forms import PACKED
from metal_gen.constraints.token_table import MATCHER_BYTES, table_bytes
from metal_gen.errors import DoesNotFitError
from metal_gen.generation.memory.working import WorkingMemory
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.speculation.planned import GuessMemory

# Smallest chunk to try if memory is short. Smaller ones would save little.
FEWEST_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The memory of a run.

    Attributes:
        model: Sizes of the model.
        dtype: Dtype of computation.
        weights_bytes: Bytes of the weights in that dtype.
        element_bytes: Bytes of an element of the weights as they are stored: of a word for packed ones.
        weights_read_bytes: Bytes of the weights that one decode step reads.
        loading_bytes: Peak memory of reading the weights, before there is a cache.
        cache: Size of the KV cache.
        most_chunk: Most tokens of prompts and forced tokens computed at once, if memory allows it.
        least_chunk: Smallest number to try otherwise; equal to `most_chunk` if the user has set it.
        available_bytes: Memory that the run may take; 0 if unknown.
        here_bytes: Memory that this machine's device has left; 0 if unknown.
        has_products_apart: Whether results of products are joined or added, so that both are in memory
            at once.
        has_head_norms: Whether queries and keys are normalized.
        most_array_bytes: Largest array that the device allows; 0 if unknown.
        stores_prefixes: Whether prefixes are read from and written to the disk, a layer at a time.
        allows_kernels: Whether metal-gen's own kernels may be used on a GPU.
        is_constrained: Whether texts have a constraint, for which the vocabulary is kept a second time.
        guesses: Memory of guesses of the next tokens; None without them.
        scores: Whether texts are scored, not generated.
        scores_in_slots: Whether they are scored in slots, be it a single one.
    """

    model: ModelConfig
    dtype: str
    weights_bytes: int
    element_bytes: int
    weights_read_bytes: int
    loading_bytes: int
    cache: KVCacheConfig
    most_chunk: int
    least_chunk: int
    available_bytes: int
    here_bytes: int = 0
    has_products_apart: bool = False
    has_head_norms: bool = True
    most_array_bytes: int = 0
    stores_prefixes: bool = False
    allows_kernels: bool = True
    is_constrained: bool = False
    guesses: GuessMemory | None = None
    scores: bool = False
    scores_in_slots: bool = False

    @property
    def is_for_another_machine(self) -> bool:
        """Whether the run may take more memory than this machine has left."""
        return 0 < self.here_bytes < self.available_bytes

    @property
    def guesses_bytes(self) -> int:
        """Memory of the source of guesses: its weights, and what it keeps of the text."""
        return 0 if self.guesses is None else self.guesses.nbytes(self.cache.max_seq_len)

    @property
    def constraint_bytes(self) -> int:
        """Estimated memory of the vocabulary for constraints, and of each text's place in a grammar."""
        if not self.is_constrained:
            return 0
        return table_bytes(self.model.vocab_size) + self.cache.batch_size * MATCHER_BYTES

    @property
    def chunk_size(self) -> int:
        """Most tokens of prompts and forced tokens computed at once: `most_chunk`, halved until it fits."""
        size = self.most_chunk
        while size > self.least_chunk and not self._fits_with(size):
            size = max(size // 2, self.least_chunk)
        return size

    @property
    def chunk_reason(self) -> str | None:
        """Why the chunks of a prompt are smaller than usual; None if they are not."""
        if self.chunk_size == self.most_chunk:
            return None
        total, array = self._total_bytes(self.most_chunk), self._array_bytes(self.most_chunk)
        taken = (
            f"an array of {format_bytes(array)}" if self._holds(total) else f"{format_bytes(total)} in all"
        )
        return f"{self.most_chunk:,} would take {taken}"

    @property
    def working_bytes(self) -> int:
        """Estimated peak memory of intermediate results."""
        return self._working_bytes(self.chunk_size)

    @property
    def ahead_bytes(self) -> int | None:
        """Memory of the work that prefill queues ahead on a GPU; None on a CPU."""
        return self._working(self.chunk_size).ahead_bytes

    @property
    def logits_rows(self) -> int:
        """Number of tokens whose logits can be computed together within `working_bytes`, to score texts."""
        return self._working(self.chunk_size).logits_rows

    def _working(self, chunk_size: int) -> WorkingMemory:
        slots, capacity = self.cache.batch_size, self.cache.max_seq_len
        return WorkingMemory(
            model=self.model,
            dtype=self.dtype,
            # Tokens of prompts and forced tokens, and one token of each other text that is generated.
            tokens=min(chunk_size, slots * capacity) + (0 if self.scores else slots - 1),
            capacity=capacity,
            texts=slots,
            has_products_apart=self.has_products_apart,
            has_head_norms=self.has_head_norms,
            drawn_rows=slots if self.guesses is None else self.guesses.most_guesses + 1,
            is_packed=self.cache.dtype == PACKED,
            allows_kernels=self.allows_kernels,
            scores_in_slots=self.scores_in_slots,
            weights_elements=self.weights_bytes // self.element_bytes // self.model.num_hidden_layers,
        )

    @property
    def total_bytes(self) -> int:
        """Peak memory of the run."""
        return self._total_bytes(self.chunk_size)

    def _total_bytes(self, chunk_size: int) -> int:
        return max(self.loading_bytes, self._running_bytes(chunk_size))

    def _running_bytes(self, chunk_size: int) -> int:
        working_bytes = self._working_bytes(chunk_size)
        if self.guesses is not None:
            # Its weights are read beside the cache, before there is a prompt.
            working_bytes = max(working_bytes, self.guesses.loading_bytes) + self.guesses_bytes
        return self.weights_bytes + self.cache.nbytes + self.constraint_bytes + working_bytes

    def _working_bytes(self, chunk_size: int) -> int:
        working = self._working(chunk_size).nbytes
        if not self.stores_prefixes:
            return working
        # One layer is read or written at a time. The states at the end of a prefix wait to be written.
        layer = self.cache.bytes_per_token * self.cache.max_seq_len // self.cache.num_layers
        states = self.cache.state_nbytes if isinstance(self.cache, HybridCacheConfig) else 0
        return max(working, layer) + states

    @property
    def running_bytes(self) -> int:
        """Weights, cache, constraints and working memory together."""
        return self._running_bytes(self.chunk_size)

    @property
    def is_loading_more(self) -> bool:
        """Whether reading the weights takes more memory than everything after it."""
        return self.loading_bytes > self.running_bytes

    @property
    def fits(self) -> bool:
        """Whether the run fits the available memory; true if that is unknown."""
        return self._fits_with(self.chunk_size)

    def _fits_with(self, chunk_size: int) -> bool:
        array_fits = not self.most_array_bytes or self._array_bytes(chunk_size) <= self.most_array_bytes
        return array_fits and self._holds(self._total_bytes(chunk_size))

    def _array_bytes(self, chunk_size: int) -> int:
        """Return the bytes of the largest array: the keys of a layer, or one of a pass."""
        keys = self.cache.bytes_per_token * self.cache.max_seq_len // (2 * self.cache.num_layers)
        return max(keys, self._working(chunk_size).largest_bytes)

    def _holds(self, nbytes: int) -> bool:
        return not self.available_bytes or nbytes <= self.available_bytes

    def with_slots(self, most: int) -> "MemoryPlan":
        """Return the plan with as many slots as fit, up to `most`, and with one if none do."""
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.with_cache(batch_size=middle).fits else (low, middle - 1)
        return self.with_cache(batch_size=low)

    def with_cache(self, **changes: Any) -> "MemoryPlan":
        """Return the plan with another cache; `changes` are fields of `KVCacheConfig`."""
        return replace(self, cache=replace(self.cache, **changes))

    def require_fit(self) -> None:
        """Refuse a run that memory cannot hold.

        Raises:
            DoesNotFitError: The run does not fit. The error names the numbers and the setting to change.
        """
        if self.fits:
            return
        if self.loading_bytes > self.available_bytes >= self.weights_bytes:
            what = f"to read the weights, which take {format_bytes(self.weights_bytes)} afterwards"
            hint = "choose a smaller checkpoint, or one that needs no conversion while it is read"
            raise DoesNotFitError(self._shortage(self.loading_bytes, what), hint + self._or_raise_limit)
        parts = {
            "weights": self.weights_bytes,
            "cache": self.cache.nbytes,
            **({"constraint": self.constraint_bytes} if self.is_constrained else {}),
            **({"guesses": self.guesses_bytes} if self.guesses is not None else {}),
            "working memory": self.working_bytes,
        }
        what = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items())
        message = self._shortage(self.running_bytes, what)
        if self._holds(self.total_bytes):
            needed, allowed = map(format_bytes, (self._array_bytes(self.chunk_size), self.most_array_bytes))
            message = f"one array takes {needed}, and this device allows {allowed}"
        if (slots := self.cache.batch_size) > 1 and (fewer := self.with_slots(slots)).fits:
            most = fewer.cache.batch_size
            hint = f"set batch_size under [cache] to at most {most} (--batch-size {most})"
        elif longest := self.longest_fit(min(self.cache.max_seq_len, self.model.context_length)):
            hint = f"set max_seq_len under [cache] to at most {longest} (--max-seq-len {longest})"
        elif self.guesses is not None and replace(self, guesses=None).longest_fit():
            hint = "leave the guesses out (--speculate off), or use a smaller draft model"
        else:
            hint = "the weights alone leave no room for a cache: use a smaller or a quantized model"
        raise DoesNotFitError(message, hint if self._holds(self.total_bytes) else hint + self._or_raise_limit)

    def _shortage(self, needed_bytes: int, what: str) -> str:
        needed, available = format_bytes(needed_bytes), format_bytes(self.available_bytes)
        have = f"the limit that is set is {available}" if self._has_limit else f"{available} are available"
        return f"{needed} of memory are needed and {have}: {what}"

    @property
    def _has_limit(self) -> bool:
        """Whether a setting limits the memory, and not this machine."""
        return self.here_bytes not in (0, self.available_bytes)

    @property
    def _or_raise_limit(self) -> str:
        return ", or raise the memory limit (--memory-limit-bytes)" if self._has_limit else ""

    @property
    def largest_max_seq_len(self) -> int:
        """Largest number of tokens within the model's context and memory; 0 if none fit."""
        return self.longest_fit(self.model.context_length)

    @property
    def most_tokens(self) -> int:
        """Upper limit on the tokens of any text, in this cache or in a larger one."""
        return max(self.cache.max_seq_len, self.largest_max_seq_len)

    def longest_fit(self, most: int | None = None) -> int:
        """Return the largest `max_seq_len` that fits, up to `most` or this plan's; 0 if none does."""
        low, high = 0, self.cache.max_seq_len if most is None else most
        while low < high:
            middle = (low + high + 1) // 2
            if self.with_cache(max_seq_len=middle).fits:
                low = middle
            else:
                high = middle - 1
        return low
