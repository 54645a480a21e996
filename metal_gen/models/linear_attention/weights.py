"""Reads the weights of linear attention, and tells how checkpoints store the norms of these models."""

from metal_gen.models.config.linear_attention import LinearAttentionConfig
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.layers import Linear, RMSNorm
from metal_gen.models.linear_attention.gated_delta_net import GatedDeltaNet
from metal_gen.models.matrices.parameters import ParameterSource, Shape


def read_delta_net(
    source: ParameterSource, prefix: str, sizes: LinearAttentionConfig, config: ModelConfig
) -> GatedDeltaNet:
    """Build a layer of linear attention.

    Args:
        source: Source of the weights, in the layout of Qwen3-Next or of Qwen3.5.
        prefix: Name prefix of the layer's linear attention.
        sizes: Sizes of its heads.
        config: Configuration of the model.
    """
    heads, hidden = sizes.linear_num_value_heads, config.hidden_size
    by_key_head = {"in_proj_qkvz": sizes.conv_size + sizes.value_size, "in_proj_ba": 2 * heads}
    in_turn = {
        "in_proj_qkv": sizes.conv_size,
        "in_proj_z": sizes.value_size,
        "in_proj_b": heads,
        "in_proj_a": heads,
    }
    # Files of llama.cpp have those of Qwen3-Next as Qwen3.5 has them.
    in_turn_there = source.shape_of(f"{prefix}.in_proj_qkv.weight") is not None
    is_by_key_head = config.model_type == "qwen3_next" and not in_turn_there
    inputs = by_key_head if is_by_key_head else in_turn
    return GatedDeltaNet(
        sizes=sizes,
        inputs=Linear(source.matrix({f"{prefix}.{name}": rows for name, rows in inputs.items()}, hidden)),
        by_key_head=is_by_key_head,
        taps=source.tensor(f"{prefix}.conv1d.weight", *_shape_of_taps(source, prefix, sizes)),
        decay_log=source.tensor(f"{prefix}.A_log", heads),
        decay_bias=source.tensor(f"{prefix}.dt_bias", heads),
        norm=RMSNorm(
            source.tensor(f"{prefix}.norm.weight", sizes.linear_value_head_dim), config.rms_norm_eps
        ),
        output=Linear(source.matrix({f"{prefix}.out_proj": hidden}, sizes.value_size)),
    )


def has_norms_around_zero(config: ModelConfig, source: ParameterSource) -> bool:
    """Return whether the checkpoint stores the weights of norms minus 1, as models with linear attention do.

    mlx-lm adds the 1 when it converts a checkpoint, and transposes the convolution, which shows that it did.
    """
    if config.linear is None or not config.num_linear_layers:
        return config.linear is not None
    prefix = f"model.layers.{config.layer_types.index('linear_attention')}.linear_attn"
    return _shape_of_taps(source, prefix, config.linear)[1] == 1


def _shape_of_taps(source: ParameterSource, prefix: str, sizes: LinearAttentionConfig) -> Shape:
    channels, count = sizes.conv_size, sizes.linear_conv_kernel_dim
    from_mlx = (channels, count, 1)
    is_from_mlx = source.shape_of(f"{prefix}.conv1d.weight") == from_mlx
    return from_mlx if is_from_mlx else (channels, 1, count)
