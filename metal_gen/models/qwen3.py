"""Qwen3 and what is built like it: mixtures, vision-language, hybrids.

Explicit head size, normalized queries and keys, optional bias.

Source: arXiv 2505.09388; `modeling_qwen3.py` of Hugging Face transformers.
"""

from metal_gen.models.assembly import assemble
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.matrices.parameters import ParameterSource
from metal_gen.models.transformer import Transformer


def build_qwen3(config: ModelConfig, source: ParameterSource) -> Transformer:
    """Build a Qwen3. `attention_bias` puts a bias on all four projections of attention."""
    bias = config.attention_bias
    return assemble(config, source, qkv_bias=bias, output_bias=bias, qk_norm=True)
