"""How much memory a run will take, from headers and settings alone, and whether it is there."""

from dataclasses import dataclass, replace
from typing import Any

from metal_gen.byte_sizes import format_bytes
from metal_gen.cache.kv_cache import KVCacheConfig
from metal_gen.device.backend import DTYPE_BYTES, runs_on_cpu
from metal_gen.errors import DoesNotFitError
from metal_gen.models.config.experts import ExpertsConfig
from metal_gen.models.config.linear_attention import LinearAttentionConfig
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.experts.groups import most_places
from metal_gen.models.linear_attention.delta_rule import CHUNK

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
        weights_read_bytes: Of them, what one step from a token to the next reads.
        loading_bytes: The most that reading them takes, before there is a cache.
        cache: The key/value cache.
        chunk_size: Prompt tokens computed at once.
        available_bytes: What the device has left; 0 where that is not known.
        has_products_apart: Results of products are joined or added, for which both are there at once.
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
        """One layer's attention and MLP overlap, because MLX allocates ahead of what is computed.

        On a CPU it does not go so far ahead that experts, which are chosen first, overlap with attention.
        """
        model = self.model
        tokens = self._most_tokens
        mixing = self._attention_numbers
        numbers = mixing + (5 + self._apart) * tokens * model.intermediate_size
        if model.linear is not None:
            linear = self._linear_numbers(model.linear)
            numbers = max(numbers, linear + 2 * tokens * model.intermediate_size)
            mixing = max(mixing, linear)
        if model.experts is not None:
            mixture = self._mixture_numbers(model.experts)
            routed = mixing + 4 * tokens * model.hidden_size
            numbers = max(numbers, max(routed, mixture) if runs_on_cpu() else mixing + mixture)
        return numbers * DTYPE_BYTES[self.dtype]

    @property
    def _apart(self) -> int:
        """Times more of what is two products, gate and up or keys and values, that are alive at once."""
        return 2 if self.has_products_apart else 0

    @property
    def _attention_numbers(self) -> int:
        """Numbers alive in a layer's attention."""
        model = self.model
        tokens = self._most_tokens
        heads = 3 * model.num_attention_heads + (2 + self._apart) * model.num_key_value_heads
        if self.has_products_apart:
            heads += model.num_attention_heads
        if model.linear is not None:  # Its full attention has gates.
            heads += 4 * model.num_attention_heads
        scores = 0
        if runs_on_cpu() or model.head_dim not in FUSED_HEAD_DIMS:
            scores = model.num_attention_heads * tokens * self.cache.max_seq_len
        return tokens * (heads * model.head_dim + 3 * model.hidden_size) + scores

    def _linear_numbers(self, linear: LinearAttentionConfig) -> int:
        """Numbers alive in a layer of linear attention; those of the delta rule are in float32."""
        heads, key, value = (
            linear.linear_num_value_heads,
            linear.linear_key_head_dim,
            linear.linear_value_head_dim,
        )
        width = 8 * linear.conv_size + 7 * heads * value + 6 * heads * key + 2 * heads * CHUNK
        numbers = self._most_tokens * (width + 7 * self.model.hidden_size) + 8 * heads * key * value
        return numbers * DTYPE_BYTES["float32"] // DTYPE_BYTES[self.dtype]

    def _mixture_numbers(self, experts: ExpertsConfig) -> int:
        """Numbers alive in a layer of experts, whose rows are arranged by expert and brought back."""
        hidden = self.model.hidden_size
        tokens = self._most_tokens
        count = tokens * experts.num_experts_per_tok
        places = most_places(count, experts.num_experts)
        arranged = places * ((3 + self._apart) * experts.moe_intermediate_size + 2 * hidden)
        shared = 3 * experts.shared_expert_intermediate_size
        return arranged + count * hidden + tokens * (7 * hidden + shared)

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
        elif longest := self.longest_fit(min(self.cache.max_seq_len, self.model.context_length)):
            hint = f"set max_seq_len under [cache] to at most {longest} (--max-seq-len {longest})"
        else:
            hint = "the weights alone leave no room for a cache: use a smaller or a quantized model"
        raise DoesNotFitError(message, hint)

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
