"""Writes LoRA adapters with random factors: by hand in both layouts, and with mlx-lm itself."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from quantized_checkpoint import quantizable_config, quantize_with_mlx_lm
from safetensors.numpy import save_file
from tiny_checkpoint import PROMPT

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.device.backend import on_cpu
from metal_gen.models.matrices.quantized import Packing
from metal_gen.models.transformer import Transformer

RANK = 4
# A (r, in) and B (out, r) by module.
Factors = dict[str, tuple[np.ndarray, np.ndarray]]


def random_factors(shapes: dict[str, tuple[int, int]], seed: int = 0, rank: int = RANK) -> Factors:
    """Return factors for matrices (out, in), whose product changes every logit."""
    stream = np.random.RandomState(seed)

    def factor(*shape: int) -> np.ndarray:
        return (0.3 * stream.standard_normal(shape)).astype(np.float32)

    return {name: (factor(rank, width), factor(out, rank)) for name, (out, width) in shapes.items()}


def peft_tensors(factors: Factors) -> dict[str, np.ndarray]:
    """Name and store factors as PEFT does."""
    tensors = {}
    for name, (first, second) in factors.items():
        prefix = f"base_model.model.{name}.lora_"
        if name.endswith("embed_tokens"):
            tensors[f"{prefix}embedding_A"] = np.ascontiguousarray(second.T)
            tensors[f"{prefix}embedding_B"] = np.ascontiguousarray(first.T)
        else:
            tensors[f"{prefix}A.weight"], tensors[f"{prefix}B.weight"] = first, second
    return tensors


def write_peft(folder: Path, tensors: dict[str, np.ndarray], **fields: Any) -> str:
    """Write a folder as PEFT does."""
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, **fields}
    return _write(folder, config, tensors, "adapter_model.safetensors")


def write_mlx(folder: Path, factors: Factors, scale: float = 2.0, **fields: Any) -> str:
    """Write a folder as mlx-lm does."""
    tensors = {}
    for name, (first, second) in factors.items():
        pair = (second, first) if name.endswith("embed_tokens") else (first.T, second.T)
        for kind, factor in zip(("lora_a", "lora_b"), pair, strict=True):
            tensors[f"{name}.{kind}"] = np.ascontiguousarray(factor)
    parameters = {"rank": RANK, "scale": scale, "dropout": 0.0}
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters, **fields}
    return _write(folder, config, tensors, "adapters.safetensors")


def _write(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray], name: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / name)
    return str(folder)


def write_with_mlx_lm(folder: Path, base: Path, keys: list[str] | None) -> np.ndarray:
    """Make an adapter for a checkpoint with mlx-lm, and return mlx-lm's logits with it, computed on the CPU.

    Args:
        folder: Of the adapter.
        base: The checkpoint.
        keys: Modules of a layer that are adapted; None for all.

    Returns:
        (L, V) of the prompt, in float32.
    """
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
    from mlx_lm.utils import load_model

    parameters = {"rank": RANK, "scale": 2.0, "dropout": 0.0, "keys": keys}
    model, _ = load_model(base)
    count = len(model.layers)
    model.freeze()
    linear_to_lora_layers(model, count, parameters)
    stream = np.random.RandomState(1)
    tensors = {
        name: (0.3 * stream.standard_normal(array.shape)).astype(np.float32)
        for name, array in tree_flatten(model.trainable_parameters())
    }
    config = {"fine_tune_type": "lora", "num_layers": count, "lora_parameters": parameters}
    _write(folder, config, tensors, "adapters.safetensors")
    with on_cpu():  # As in `logits_of_mlx_lm`.
        adapted = load_adapters(load_model(base)[0], str(folder))
        adapted.eval()
        return np.array(adapted(mx.array([PROMPT]))[0], np.float32)


def load_adapted_and_quantized(folder: Path) -> Transformer:
    """Write a quantized Qwen3 with adapters for one of three fused projections, and for one of two."""
    base = quantize_with_mlx_lm(folder, quantizable_config("qwen3"), Packing(4, 64))
    shapes = {"self_attn.k_proj": (128, 64), "mlp.up_proj": (128, 64), "mlp.down_proj": (64, 128)}
    named = {f"model.layers.{index}.{name}": shape for index in (0, 1) for name, shape in shapes.items()}
    adapter = write_mlx(folder / "adapter", random_factors(named))
    return Checkpoint(base, adapters=[adapter]).weights.load("float32")
