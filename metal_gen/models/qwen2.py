"""Qwen2: Qwen1.5, Qwen2, Qwen2.5, QwQ and the Qwen models distilled from DeepSeek-R1.

Source: arXiv 2407.10671; `modeling_qwen2.py` of Hugging Face transformers.
"""

from metal_gen.models.assembly import assemble
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.matrices.parameters import ParameterSource
from metal_gen.models.transformer import Transformer


def build_qwen2(config: ModelConfig, source: ParameterSource) -> Transformer:
    """Build a Qwen2. Queries, keys and values always have a bias; config.json has no field for it."""
    return assemble(config, source, qkv_bias=True, output_bias=False, qk_norm=False)
