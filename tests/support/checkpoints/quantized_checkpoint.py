"""Writes tiny checkpoints quantized by mlx-lm, and computes mlx-lm's logits for them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from tiny_checkpoint import PROMPT, tiny_config, tiny_weights, write_checkpoint

from metal_gen.device.backend import on_cpu
from metal_gen.models.matrices.matrix import ArrayMatrix, DenseMatrix
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix

# Maps a module's path and the module to a packing, or to whether it is quantized.
Chooser = Callable[[str, Any], bool | dict[str, Any]]

EXPERTS_OF_MLX_LM = {"decoder_sparse_step": 1, "mlp_only_layers": []}


def quantizable_config(arch: str, **changes: Any) -> dict[str, Any]:
    """Return a config.json for matrices with rows of whole groups of 64, with all fields for mlx-lm."""
    config = tiny_config(arch, hidden_size=64, intermediate_size=128, head_dim=64, **changes)
    if arch == "qwen2" or arch == "qwen2_moe":
        config["head_dim"] = 16
    if "num_experts" in config:
        config.update(EXPERTS_OF_MLX_LM, moe_intermediate_size=64)
        config["norm_topk_prob"] = arch != "qwen2_moe"  # mlx-lm supports no other value there.
    if "shared_expert_intermediate_size" in config:
        config["shared_expert_intermediate_size"] = 128
    if "linear_value_head_dim" in config:
        config.update(linear_value_head_dim=16, partial_rotary_factor=0.25)
    if arch.startswith("qwen3_5"):  # mlx-lm reads them only from there.
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
    """Write a quantized checkpoint of random weights, and the unquantized one next to it in `plain`."""
    weights = tiny_weights(config)
    if config["model_type"] == "qwen3_5_moe":  # mlx-lm no longer reads single experts there.
        weights = with_stacked_experts(weights)
    write_checkpoint(folder / "plain", config, weights)
    return quantize_folder_with_mlx_lm(folder, packing, choose)


def with_stacked_experts(weights: dict[str, np.ndarray], *, is_turned: bool = False) -> dict[str, np.ndarray]:
    """Store experts as transformers 5 does, or with rows and columns swapped, as in Qwen3-VL-MoE."""
    together = {name: array for name, array in weights.items() if ".experts." not in name}
    prefixes = sorted({name.split(".experts.")[0] for name in weights if ".experts." in name})
    for prefix in prefixes:
        count = sum(name.startswith(f"{prefix}.experts.") for name in weights) // 3
        gate, up, down = (
            np.stack([weights[f"{prefix}.experts.{index}.{name}_proj.weight"] for index in range(count)])
            for name in ("gate", "up", "down")
        )
        for name, whole in (("gate_up_proj", np.concatenate([gate, up], axis=1)), ("down_proj", down)):
            as_stored = np.ascontiguousarray(whole.swapaxes(1, 2)) if is_turned else whole
            together[f"{prefix}.experts.{name}"] = as_stored
    return together


def quantize_folder_with_mlx_lm(folder: Path, packing: Packing, choose: Chooser | None = None) -> Path:
    """Write a quantized copy of `plain` to `quantized` next to it."""
    from mlx_lm.utils import load_model, quantize_model, save_config, save_model

    model, read = load_model(folder / "plain")
    model, read = quantize_model(
        model, read, packing.group_size, packing.bits, mode=packing.mode, quant_predicate=choose
    )
    save_model(folder / "quantized", model)
    save_config(read, folder / "quantized" / "config.json")
    return folder / "quantized"


def store_in(folder: Path, dtype: str) -> None:
    """Rewrite a checkpoint's weights in another dtype."""
    path = folder / "model.safetensors"
    weights = {name: array.astype(getattr(mx, dtype)) for name, array in mx.load(str(path)).items()}
    mx.eval(weights)
    mx.save_safetensors(str(path), weights, metadata={"format": "pt"})


def matrices_of(model: Any) -> list[ArrayMatrix]:
    """Return all matrices of a model, in order."""
    if isinstance(model, DenseMatrix | QuantizedMatrix):
        return [model]
    if isinstance(model, tuple):
        return [matrix for part in model for matrix in matrices_of(part)]
    if is_dataclass(model) and not isinstance(model, type):
        return [found for field in fields(model) for found in matrices_of(getattr(model, field.name))]
    return []


def assert_same_matrices(model: Any, other: Any) -> None:
    """Check that the matrices of two models are equal bit for bit."""
    pairs = list(zip(matrices_of(model), matrices_of(other), strict=True))
    assert pairs
    for matrix, expected in pairs:
        assert type(matrix) is type(expected)
        assert matrix.is_like(expected)
        for array, wanted in zip(matrix.arrays, expected.arrays, strict=True):
            assert array.dtype == wanted.dtype
            assert mx.array_equal(array, wanted)


def assert_in_order(model: Any) -> None:
    """Check that packed numbers are in order in memory, with the strides that MLX's CUDA kernels require."""
    for matrix in matrices_of(model):
        if isinstance(matrix, QuantizedMatrix):
            for array in matrix.arrays:
                usual = np.empty(array.shape, np.int8).strides
                assert array_strides(array) == usual, f"{array.shape} of {matrix.packing}"


def array_strides(array: mx.array) -> tuple[int, ...]:
    """Return the strides of an array, in numbers."""
    words = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}  # A buffer knows no bfloat16.
    strides = memoryview(array.view(words[array.itemsize])).strides  # type: ignore[arg-type]
    assert strides is not None
    return tuple(stride // array.itemsize for stride in strides)


def logits_of_mlx_lm(folder: Path) -> np.ndarray:
    """Return the prompt's logits, (L, V), computed in float32 on the CPU.

    With CUDA, MLX gives numbers without meaning for these narrow matrices, and mlx-lm uses them.
    """
    from mlx_lm.utils import load_model

    with on_cpu(), unfused():
        model, _ = load_model(folder)
        model.set_dtype(mx.float32)
        return np.array(model(mx.array([PROMPT]))[0])


@contextmanager
def unfused() -> Iterator[None]:
    """Do without fusion, for which MLX on a CPU calls a C++ compiler; the numbers are the same."""
    mx.disable_compile()
    try:
        yield
    finally:
        mx.enable_compile()
