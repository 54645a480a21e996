"""Estimates the memory of one pass's intermediate results: those of a layer, and of sampling.

Axes in comments: T tokens of a pass, S positions of the cache.
"""

from dataclasses import dataclass

from metal_gen.device.backend import (
    DTYPE_BYTES,
    product_scratch_bytes,
    prompt_stride,
    runs_on_cpu,
    runs_on_cuda,
)
from metal_gen.engine.scoring.pass_memory import MOST_LOGITS_ROWS, ScoringPassMemory
from metal_gen.generation.memory.queued_layers import QueuedLayers
from metal_gen.models.config.experts import ExpertsConfig
from metal_gen.models.config.linear_attention import LinearAttentionConfig
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.experts.groups import most_places
from metal_gen.models.linear_attention.mix import MOST_WHOLE, is_supported
from metal_gen.models.rows.rules import trial_bytes

# Head sizes for which MLX's GPU kernels keep attention scores out of memory.
FUSED_HEAD_DIMS = (64, 80, 128)
SAMPLING_ARRAYS = 6
# How often a result of a layer is read, measured by what MLX hands over together.
READ_BY_ATTENTION, READ_BY_LINEAR = 2.0, 1.2


@dataclass(frozen=True, kw_only=True)
class WorkingMemory:
    """The peak memory of a pass, in addition to weights and cache.

    The peak is in the last chunk of a prompt that fills the cache: on a GPU in the layers that are queued
    ahead. On a CPU, MLX queues about a hundred operations ahead and allocates all their results at once,
    which is about one layer.

    Args:
        model: Sizes of the model.
        dtype: Dtype of computation.
        tokens: T of one pass.
        capacity: S.
        texts: Number of texts that draw a token at once.
        has_products_apart: Whether results of products are joined or added, so that both are in memory
            at once.
        has_head_norms: Whether queries and keys are normalized.
        drawn_rows: Number of tokens that are drawn at once.
        is_packed: Whether keys and values are in 8 bits in the cache.
        allows_kernels: Whether metal-gen's own kernels may be used on a GPU.
        scores_in_slots: Whether texts are scored in slots, be it a single one.
        weights_elements: Elements of a layer's weights as they are stored, such as words of packed ones.
    """

    model: ModelConfig
    dtype: str
    tokens: int
    capacity: int
    texts: int
    has_products_apart: bool
    has_head_norms: bool
    drawn_rows: int
    is_packed: bool = False
    allows_kernels: bool = True
    scores_in_slots: bool = False
    weights_elements: int = 0

    @property
    def nbytes(self) -> int:
        """Estimated peak memory of the pass, in bytes."""
        if (stages := self._in_stages) is not None:
            return max(stages.nbytes, self._trial_bytes)
        mask = self.tokens * self.capacity
        sampling = SAMPLING_ARRAYS * self.drawn_rows * self.model.vocab_size * DTYPE_BYTES["float32"]
        layers = self.layer_bytes if self._queued is None else self._queued.peak_bytes
        return max(layers + mask + product_scratch_bytes(), sampling, self._trial_bytes)

    @property
    def _in_stages(self) -> ScoringPassMemory | None:
        """Memory of a pass that computes each stage by itself: of texts scored in slots, on a CPU."""
        if not (self.scores_in_slots and runs_on_cpu()):
            return None
        return ScoringPassMemory(
            model=self.model,
            dtype=self.dtype,
            tokens=self.tokens,
            capacity=self.capacity,
            has_products_apart=self.has_products_apart,
            has_head_norms=self.has_head_norms,
            is_packed=self.is_packed,
        )

    @property
    def _trial_bytes(self) -> int:
        """Memory of trying how slots multiply rows on a CPU, before there are texts."""
        if (self.texts == 1 and not self.scores_in_slots) or not runs_on_cpu():
            return 0
        model = self.model
        shapes = [(width, model.hidden_size) for width in (model.vocab_size, model.intermediate_size)]
        return max(trial_bytes(*shape, DTYPE_BYTES[self.dtype]) for shape in shapes)

    @property
    def logits_rows(self) -> int:
        """Number of rows whose logits fit where the results of a layer are, when texts are scored."""
        if (stages := self._in_stages) is not None:
            return stages.logits_rows
        size = DTYPE_BYTES[self.dtype]
        if runs_on_cpu() and size < DTYPE_BYTES["float32"]:
            # In float32 too.
            size += DTYPE_BYTES["float32"]
        others = self._numbers(2 * self.tokens * self.model.hidden_size) + product_scratch_bytes()
        return max(1, min(MOST_LOGITS_ROWS, (self.nbytes - others) // (size * self.model.vocab_size)))

    @property
    def ahead_bytes(self) -> int | None:
        """Memory of the layers that prefill queues ahead on a GPU; None on a CPU."""
        return None if self._queued is None else self._queued.limit_bytes

    @property
    def _queued(self) -> QueuedLayers | None:
        """The layers that a GPU has in its queue; None on a CPU, where MLX queues less than a layer."""
        if runs_on_cpu():
            return None
        by_kind, is_hybrid = self._bytes_by_kind, self.model.linear is not None
        usual = by_kind[is_hybrid]
        read = (READ_BY_LINEAR if is_hybrid else READ_BY_ATTENTION) * usual / DTYPE_BYTES[self.dtype]
        return QueuedLayers(
            attention_bytes=by_kind[False],
            usual_bytes=usual,
            scores_bytes=self.scores_bytes * self._part_tokens // self.tokens,
            read_elements=self.weights_elements + int(read),
        )

    @property
    def layer_bytes(self) -> int:
        """Bytes of the largest layer: the mixing of tokens and the part after it, as far as they overlap."""
        return max(self._bytes_by_kind.values())

    @property
    def _bytes_by_kind(self) -> dict[bool, int]:
        """Bytes of a layer with attention, by False, and of one with linear attention, by True.

        On a CPU, MLX does not queue so far ahead that experts, which are chosen first, overlap with
        attention.
        """
        model, on_cpu = self.model, runs_on_cpu()
        norms = self._norm_bytes if on_cpu else 0
        mixing = {False: self._numbers(self._attention_numbers) + norms + self.unpacking_bytes}
        after = {False: self._numbers(self._mlp_numbers)}
        if model.linear is not None:
            mixing[True] = self._linear_bytes(model.linear)
            after[True] = self._numbers(2 * self.tokens * model.intermediate_size)
        mixture = 0 if model.experts is None else self._numbers(self._mixture_numbers(model.experts))
        found = {}
        for kind, numbers in mixing.items():
            dense = numbers + after[kind] if self._has_dense_layers else 0
            with_experts = max(numbers, mixture) if on_cpu else numbers + mixture
            found[kind] = max(dense, 0 if model.experts is None else with_experts)
        return found

    @property
    def unpacking_bytes(self) -> int:
        """Bytes of a layer's keys and values that attention unpacks for a prompt, at first in float32."""
        if not self.is_packed:
            return 0
        size = DTYPE_BYTES[self.dtype]
        return 2 * self._keys * (DTYPE_BYTES["float32"] + (size if size < DTYPE_BYTES["float32"] else 0))

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest array: attention scores, or unpacked keys."""
        return max(self.scores_bytes, self._keys * DTYPE_BYTES["float32"] if self.is_packed else 0)

    @property
    def _keys(self) -> int:
        """Numbers in the keys of a layer."""
        return self.texts * self.capacity * self.model.num_key_value_heads * self.model.head_dim

    def _numbers(self, count: int) -> int:
        """Return the bytes of `count` numbers."""
        return count * DTYPE_BYTES[self.dtype]

    @property
    def _has_dense_layers(self) -> bool:
        model = self.model
        experts = model.experts
        return experts is None or not all(map(experts.are_in, range(model.num_hidden_layers)))

    @property
    def _apart(self) -> int:
        """Additional copies in memory of a pair of products: gate and up, or keys and values."""
        return 2 if self.has_products_apart else 0

    @property
    def _mlp_numbers(self) -> int:
        """Numbers in memory in an MLP: gate, up and their product."""
        model, on_cpu = self.model, runs_on_cpu()
        width = ((3 if on_cpu else 5) + self._apart) * model.intermediate_size
        return self.tokens * (width + (4 if on_cpu else 0) * model.hidden_size)

    @property
    def _attention_numbers(self) -> int:
        """Numbers in memory in a layer's attention."""
        model = self.model
        queries, keys = model.num_attention_heads, model.num_key_value_heads
        if runs_on_cpu():
            # Projected; normalized and rotated; queries scaled, attended with, and reshaped to rows.
            turned = 5 if self.has_head_norms else 3
            heads = queries + 2 * keys + turned * (queries + keys) + 3 * queries
        else:
            heads = 3 * queries + 2 * keys
        if self.has_products_apart:
            heads += queries + 2 * keys
        if model.linear is not None:  # Its full attention has gates.
            heads += 4 * queries
        return self.tokens * (heads * model.head_dim + 3 * model.hidden_size) + self._score_numbers

    @property
    def scores_bytes(self) -> int:
        """Bytes of a layer's attention scores; 0 where a kernel keeps them out of memory."""
        return self._numbers(self._score_numbers)

    @property
    def _score_numbers(self) -> int:
        is_fused = self.model.head_dim in FUSED_HEAD_DIMS and not runs_on_cpu()
        if runs_on_cuda() and self.dtype == "float32":
            is_fused = False  # cuDNN has no kernel for it.
        if not is_fused:
            return self.model.num_attention_heads * self.tokens * self.capacity
        return 0

    @property
    def _part_tokens(self) -> int:
        """Tokens of one text in a pass. Prompts in slots are computed in parts."""
        return self.tokens if self.texts == 1 else min(self.tokens, prompt_stride())

    @property
    def _norm_bytes(self) -> int:
        """Additional bytes of norms on a CPU, which computes them in float32."""
        if DTYPE_BYTES[self.dtype] == DTYPE_BYTES["float32"]:
            return 0
        model = self.model
        if not self.has_head_norms:
            # Half of the next norm is then among the operations that MLX hands over ahead.
            return self.tokens * 18 * model.hidden_size
        heads = model.num_attention_heads + model.num_key_value_heads
        return self.tokens * (12 * model.hidden_size + 6 * heads * model.head_dim)

    def _linear_bytes(self, linear: LinearAttentionConfig) -> int:
        """Return the bytes in memory in a layer of linear attention.

        Several texts go through convolution and delta rule in parts, of which some are in memory at once:
        as many as have a hundred operations.
        """
        if self.allows_kernels and not runs_on_cpu() and is_supported(linear):
            return self._kernel_bytes(linear)
        half = DTYPE_BYTES[self.dtype] < DTYPE_BYTES["float32"]
        heads, key = linear.linear_num_value_heads, linear.linear_key_head_dim
        in_parts = (6 if half else 3) * prompt_stride()
        part = self.tokens if self.texts == 1 else min(self.tokens, in_parts)
        # Projected; seven times in the convolution; gates, and what they are multiplied with.
        width = linear.conv_size + 7 * linear.value_size + 7 * self.model.hidden_size
        numbers = self.tokens * width + part * 7 * linear.conv_size
        # The delta rule, in float32: normalized by key head, then repeated and weighted for value heads.
        rule = 2 * linear.key_size + 3 * heads * key
        if half:
            repeated = 2 if heads > linear.linear_num_key_heads else 0
            rule += int((1.4 + repeated) * heads * key)
        memories = 2 * heads * key * linear.linear_value_head_dim
        norms = 4 * self.tokens * self.model.hidden_size if half else 0
        return self._numbers(numbers) + (part * rule + memories + norms) * DTYPE_BYTES["float32"]

    def _kernel_bytes(self, linear: LinearAttentionConfig) -> int:
        """Return the bytes in a layer of linear attention whose kernel does all between the projections."""
        heads, hidden = linear.linear_num_value_heads, self.model.hidden_size
        # Projected, and gated; norms, sums and products of the layer.
        rows = (
            linear.conv_size + 2 * linear.value_size + 2 * heads + 6 * hidden + self.model.intermediate_size
        )
        in_float32 = 2 * heads * linear.linear_key_head_dim * linear.linear_value_head_dim
        if self._part_tokens > MOST_WHOLE:
            # What is prepared, and heads before their norm.
            in_float32 += self._part_tokens * (linear.conv_size + 4 * heads + linear.value_size)
        return self._numbers(self.tokens * rows) + in_float32 * DTYPE_BYTES["float32"]

    def _mixture_numbers(self, experts: ExpertsConfig) -> int:
        """Return the numbers in memory in a layer of experts, with rows sorted by expert and back."""
        hidden = self.model.hidden_size
        count = self.tokens * experts.num_experts_per_tok
        places = most_places(count, experts.num_experts)
        arranged = places * ((3 + self._apart) * experts.moe_intermediate_size + 2 * hidden)
        shared = 3 * experts.shared_expert_intermediate_size
        return arranged + count * hidden + self.tokens * ((10 if runs_on_cpu() else 7) * hidden + shared)
