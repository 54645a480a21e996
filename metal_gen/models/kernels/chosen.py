"""Chooses all kernels of a model. A kernel is used where its trial goes well and it gains time."""

from collections.abc import Collection
from dataclasses import dataclass

from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels.add_norm import choose_add_norm
from metal_gen.models.kernels.attention_trial import choose_attention
from metal_gen.models.kernels.choice import PLAIN, Choice
from metal_gen.models.matrices.quantized import Packing


@dataclass(frozen=True)
class ModelKernels:
    """Which parts of a model are computed by kernels of metal-gen's own.

    Attributes:
        attention: How to compute the attention of new tokens.
        residual_norms: How to compute residual sums and their norms.
        quantized_products: How to multiply a few rows by quantized matrices.
        in_linear_attention: Whether linear attention may use kernels. Each layer tries those for its dtypes.
    """

    attention: Choice = PLAIN
    residual_norms: Choice = PLAIN
    quantized_products: Choice = PLAIN
    in_linear_attention: bool = False


NO_KERNELS = ModelKernels()


def choose_kernels(
    config: ModelConfig,
    dtype: str,
    cache_dtype: str,
    *,
    has_head_norms: bool,
    packings: Collection[Packing] = (),
    for_new_tokens: bool = True,
) -> ModelKernels:
    """Return the kernels of a model on this device. The first call for such sizes tries them on a GPU.

    Args:
        config: Sizes of the model.
        dtype: Dtype of computation: `float32`, `bfloat16` or `float16`.
        cache_dtype: Dtype of the cache, which may also be `q8`.
        has_head_norms: Whether queries and keys are normalized.
        packings: Packings of its quantized matrices.
        for_new_tokens: Whether to use those that compute a few new tokens at a time.
    """
    if not for_new_tokens:
        return ModelKernels(in_linear_attention=True)
    return ModelKernels(
        choose_attention(config, dtype, cache_dtype, has_head_norms=has_head_norms),
        choose_add_norm(config.hidden_size, dtype),
        _choose_quantized_products(packings, dtype) if packings else PLAIN,
        in_linear_attention=True,
    )


def _choose_quantized_products(packings: Collection[Packing], dtype: str) -> Choice:
    from metal_gen.models.kernels.quantized_trial import choose_quantized_products

    return choose_quantized_products(packings, dtype)
