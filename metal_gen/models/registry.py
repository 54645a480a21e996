"""The function that builds each `model_type` of config.json."""

from collections.abc import Callable

from metal_gen.errors import CheckpointError
from metal_gen.models.config.fields import quoted
from metal_gen.models.config.language_part import family
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.matrices.parameters import ParameterSource
from metal_gen.models.qwen2 import build_qwen2
from metal_gen.models.qwen2_moe import build_qwen2_moe
from metal_gen.models.qwen3 import build_qwen3
from metal_gen.models.transformer import Transformer

ModelBuilder = Callable[[ModelConfig, ParameterSource], Transformer]

BUILDERS: dict[str, ModelBuilder] = {
    "qwen2": build_qwen2,
    "qwen2_moe": build_qwen2_moe,
    "qwen3": build_qwen3,
    "qwen3_moe": build_qwen3,  # config.json decides whether there are experts
    # The language part of vision-language models.
    "qwen2_vl": build_qwen2,
    "qwen2_5_vl": build_qwen2,
    "qwen3_vl": build_qwen3,
    "qwen3_vl_moe": build_qwen3,
    # With linear-attention layers, if config.json has them.
    "qwen3_next": build_qwen3,
    "qwen3_5": build_qwen3,
    "qwen3_5_moe": build_qwen3,
}


def builder_for(model_type: str) -> ModelBuilder:
    """Return the function that builds this family.

    Raises:
        CheckpointError: No family of this name is supported.
    """
    name = family(model_type)
    if name not in BUILDERS:
        raise CheckpointError(
            f"this model is not supported: model_type is {quoted(model_type)}",
            f"supported are {', '.join(sorted(BUILDERS))}",
        )
    return BUILDERS[name]
