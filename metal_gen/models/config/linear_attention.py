"""Configuration of linear attention: head sizes, and which layers use it."""

from dataclasses import dataclass

from metal_gen.models.config.fields import FieldReader

HYBRIDS = frozenset({"qwen3_next", "qwen3_5", "qwen3_5_moe"})
LINEAR_FIELDS = frozenset(
    """attn_output_gate full_attention_interval linear_conv_kernel_dim linear_key_head_dim
    linear_num_key_heads linear_num_value_heads linear_value_head_dim mamba_ssm_dtype
    mtp_num_hidden_layers mtp_use_dedicated_embeddings num_nextn_predict_layers""".split()
)
DEFAULT_INTERVAL = 4


@dataclass(frozen=True, kw_only=True)
class LinearAttentionConfig:
    """The sizes of linear attention, in Hugging Face's field names."""

    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int

    @property
    def key_size(self) -> int:
        """Total size of the key heads, and of the query heads."""
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def value_size(self) -> int:
        """Total size of the value heads."""
        return self.linear_num_value_heads * self.linear_value_head_dim

    @property
    def conv_size(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.key_size + self.value_size


def read_linear_attention(config: FieldReader, model_type: str) -> LinearAttentionConfig | None:
    """Read the fields of a config.json that describe linear attention. Return None if there is none.

    Raises:
        CheckpointError: A field is missing or wrong, or two contradict each other.
    """
    if model_type not in HYBRIDS:
        return None
    keys, values = config.integer("linear_num_key_heads"), config.integer("linear_num_value_heads")
    if values % keys:
        raise config.error(f"{values} value heads cannot share {keys} key heads of linear attention evenly")
    if not config.flag("attn_output_gate", True):
        raise config.error("attn_output_gate is False, and only True is supported")
    return LinearAttentionConfig(
        linear_num_key_heads=keys,
        linear_num_value_heads=values,
        linear_key_head_dim=config.integer("linear_key_head_dim"),
        linear_value_head_dim=config.integer("linear_value_head_dim"),
        linear_conv_kernel_dim=config.integer("linear_conv_kernel_dim", minimum=2),
    )


def implied_kinds(config: FieldReader, layers: int) -> list[str]:
    """Return each layer's kind of attention if config.json does not list them: every fourth is full."""
    interval = config.integer("full_attention_interval", DEFAULT_INTERVAL)
    return ["linear_attention" if (index + 1) % interval else "full_attention" for index in range(layers)]
