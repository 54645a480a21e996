"""Computes the memory of a pass of scored texts on a CPU, where each stage of a layer is computed by itself.

The results of one stage are in memory at once, and what the next ones need of those before. The factors were
measured: MLX computes norms and rotations on a CPU in several operations, in half precision in float32.

Axes in comments: T tokens of a pass, S positions of the cache.
"""

from dataclasses import dataclass

from metal_gen.device.backend import DTYPE_BYTES, prompt_stride
from metal_gen.models.config.experts import ExpertsConfig
from metal_gen.models.config.model_config import ModelConfig

# A BLAS takes twice the time for each row, or more, if there are fewer.
FEWEST_LOGITS_ROWS = 128
# Enough to read the head's weights seldom.
MOST_LOGITS_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class ScoringPassMemory:
    """The memory of a pass over texts in slots, in addition to weights and cache.

    Args:
        model: Sizes of a model without linear attention.
        dtype: Dtype of computation.
        tokens: T.
        capacity: S.
        has_products_apart: Whether results of products are joined or added.
        has_head_norms: Whether queries and keys are normalized.
        is_packed: Whether keys and values are in 8 bits in the cache.
    """

    model: ModelConfig
    dtype: str
    tokens: int
    capacity: int
    has_products_apart: bool
    has_head_norms: bool
    is_packed: bool

    @property
    def nbytes(self) -> int:
        """Peak memory of the pass, in bytes."""
        return max(self._layer_bytes, self._logits_bytes(FEWEST_LOGITS_ROWS))

    @property
    def logits_rows(self) -> int:
        """Number of tokens whose logits are computed together."""
        room = self._layer_bytes - self._logits_bytes(0)
        fitting = room // (self._logits_bytes(1) - self._logits_bytes(0))
        return min(MOST_LOGITS_ROWS, max(FEWEST_LOGITS_ROWS, fitting))

    def _logits_bytes(self, rows: int) -> int:
        """Return the bytes of hidden states, and of the logits of some rows."""
        hidden = 2 * self.tokens * self.model.hidden_size * self._size
        # The logits in half precision are in float32 too.
        size = self._size + (DTYPE_BYTES["float32"] if self._is_half else 0)
        return hidden + rows * self.model.vocab_size * size

    @property
    def _layer_bytes(self) -> int:
        """Bytes of the largest stage of a layer."""
        stages = [self._projections, self._attention]
        experts = self.model.experts
        if experts is not None:
            stages.append(self._mixture(experts))
        if experts is None or not all(map(experts.are_in, range(self.model.num_hidden_layers))):
            stages.append(self._mlp)
        return max(stages) * self._size

    @property
    def _is_half(self) -> bool:
        return self._size < DTYPE_BYTES["float32"]

    @property
    def _size(self) -> int:
        """Bytes of a number."""
        return DTYPE_BYTES[self.dtype]

    @property
    def _heads(self) -> tuple[int, int]:
        """Numbers of a token's queries, and of its keys."""
        model = self.model
        return model.num_attention_heads * model.head_dim, model.num_key_value_heads * model.head_dim

    @property
    def _projections(self) -> int:
        """Numbers in memory when queries, keys and values have been projected, normalized and rotated."""
        model, (queries, keys) = self.model, self._heads
        normalized = 11 if self._is_half else 6
        turned = (normalized if self.has_head_norms else 4) * (queries + keys) + keys
        apart = queries + 2 * keys if self.has_products_apart else 0
        # The angles of a token, their sines and cosines.
        angles = 4 * model.head_dim if self._is_half else 3 * model.head_dim // 2
        return self.tokens * ((8 if self._is_half else 3) * model.hidden_size + turned + apart + angles)

    @property
    def _attention(self) -> int:
        """Numbers in memory when a part has been attended from: one of the longest, the others done."""
        model, (queries, keys) = self.model, self._heads
        part = min(prompt_stride(), self.tokens, self.capacity)
        scores = part * model.num_attention_heads * self.capacity
        return self.tokens * (2 * model.hidden_size + 3 * (queries + keys)) + scores + self._unpacked

    @property
    def _unpacked(self) -> int:
        """Numbers in memory of the keys and values of a text that were unpacked, at first in float32."""
        if not self.is_packed:
            return 0
        copies = 3 if self._is_half else 1
        return 2 * copies * self.capacity * self._heads[1]

    @property
    def _mlp(self) -> int:
        """Numbers in memory in an MLP: gate, up, their product, and rows of the layer."""
        width = (5 if self.has_products_apart else 3) * self.model.intermediate_size
        return self.tokens * (width + (10 if self._is_half else 5) * self.model.hidden_size)

    def _mixture(self, experts: ExpertsConfig) -> int:
        """Return the numbers in memory in a layer of experts, each row of which is computed by itself."""
        hidden, chosen = self.model.hidden_size, experts.num_experts_per_tok
        apart = 2 if self.has_products_apart else 0
        width = (5 + chosen) * hidden + (3 + apart) * chosen * experts.moe_intermediate_size
        if shared := experts.shared_expert_intermediate_size:
            width += (3 + apart) * shared + hidden
        return self.tokens * (width + 3 * experts.num_experts)
