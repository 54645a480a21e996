"""Qwen2 with experts: Qwen1.5-MoE and Qwen2-57B-A14B, whose layers also have a shared expert.

Source: arXiv 2407.10671; `modeling_qwen2_moe.py` of Hugging Face transformers.
"""

from metal_gen.models.assembly import assemble
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.matrices.parameters import ParameterSource
from metal_gen.models.transformer import Transformer


def build_qwen2_moe(config: ModelConfig, source: ParameterSource) -> Transformer:
    """Build a Qwen2 with experts. `qkv_bias` decides whether queries, keys and values have a bias."""
    return assemble(config, source, qkv_bias=config.qkv_bias, output_bias=False, qk_norm=False)
