"""Tiny checkpoints whose weights mlx-lm has quantized, and the logits that it computes from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from tiny_checkpoint import PROMPT, tiny_config, tiny_weights, write_checkpoint

from metal_gen.models.quantized_matrix import Packing

# Module's path and module, to a packing, or to whether it is quantized.
Chooser = Callable[[str, Any], bool | dict[str, Any]]

EXPERTS_OF_MLX_LM = {"decoder_sparse_step": 1, "mlp_only_layers": []}


def quantizable_config(arch: str, **changes: Any) -> dict[str, Any]:
    """A config.json all of whose matrices have rows of whole groups of 64, and all that mlx-lm asks for."""
    config = tiny_config(arch, hidden_size=64, intermediate_size=128, head_dim=64, **changes)
    if arch == "qwen2" or arch == "qwen2_moe":
        config["head_dim"] = 16
    if "num_experts" in config:
        config.update(EXPERTS_OF_MLX_LM, moe_intermediate_size=64)
        config["norm_topk_prob"] = arch != "qwen2_moe"  # mlx-lm knows of no other there.
    if "shared_expert_intermediate_size" in config:
        config["shared_expert_intermediate_size"] = 128
    if "linear_value_head_dim" in config:
        config.update(linear_value_head_dim=16, partial_rotary_factor=0.25)
    if arch == "qwen3_5":  # mlx-lm takes them from nowhere else.
        theta = config.pop("rope_theta")
        config["rope_parameters"] = {
            "rope_type": "default",
            "rope_theta": theta,
            "partial_rotary_factor": config.pop("partial_rotary_factor"),
        }
    return config


def quantize_with_mlx_lm(
    folder: Path, config: dict[str, Any], packing: Packing, choose: Chooser | None = None
) -> Path:
    """Write a checkpoint of random weights, quantized."""
    from mlx_lm.utils import load_model, quantize_model, save_config, save_model

    plain = write_checkpoint(folder / "plain", config, tiny_weights(config))
    model, read = load_model(plain)
    model, read = quantize_model(
        model, read, packing.group_size, packing.bits, mode=packing.mode, quant_predicate=choose
    )
    save_model(folder / "quantized", model)
    save_config(read, folder / "quantized" / "config.json")
    return folder / "quantized"


def logits_of_mlx_lm(folder: Path) -> np.ndarray:
    """(L, V) of the prompt, in float32."""
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    return np.array(model(mx.array([PROMPT]))[0], np.float32)
