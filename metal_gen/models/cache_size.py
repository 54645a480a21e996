"""The size of a model's cache: its shape comes from the model, its capacity from the run."""

from dataclasses import asdict

from metal_gen.cache.config import HybridCacheConfig, KVCacheConfig
from metal_gen.models.config.model_config import ModelConfig


def cache_size(model: ModelConfig, *, max_seq_len: int, batch_size: int = 1, dtype: str) -> KVCacheConfig:
    """Return the size of a cache for this model.

    Args:
        model: Sizes of the model.
        max_seq_len: Positions of each text.
        batch_size: Number of texts.
        dtype: Dtype of keys and values.
    """
    config = KVCacheConfig(
        num_layers=model.num_cached_layers,
        num_kv_heads=model.num_key_value_heads,
        head_dim=model.head_dim,
        max_seq_len=max_seq_len,
        batch_size=batch_size,
        dtype=dtype,
    )
    if (linear := model.linear) is None:
        return config
    return HybridCacheConfig(
        **asdict(config),
        num_linear_layers=model.num_linear_layers,
        conv_state=(linear.linear_conv_kernel_dim - 1, linear.conv_size),
        memory=(linear.linear_num_value_heads, linear.linear_value_head_dim, linear.linear_key_head_dim),
    )
