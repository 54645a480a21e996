"""Reads the weights of experts, which checkpoints store one by one or as one tensor per layer."""

from collections.abc import Callable

from metal_gen.models.config.experts import ExpertsConfig
from metal_gen.models.experts.linear import ExpertLinear, expert_linear
from metal_gen.models.matrices.adapted import AnyMatrix
from metal_gen.models.matrices.matrix import ArrayMatrix
from metal_gen.models.matrices.parameters import ParameterSource, Shape


def stacks_experts(shape_of: Callable[[str], Shape | None], prefix: str) -> bool:
    """Return whether a layer has one tensor for all its experts, rather than a few for each.

    Args:
        shape_of: Returns the shape of a tensor, or None if there is none.
        prefix: Name prefix of the layer's MLP.
    """
    return any(
        shape_of(f"{prefix}.{name}") is not None
        for name in ("experts.gate_up_proj", "experts.down_proj", "switch_mlp.gate_proj.weight")
    )


def read_expert_weights(
    source: ParameterSource, prefix: str, experts: ExpertsConfig, hidden: int
) -> tuple[ExpertLinear, ExpertLinear]:
    """Return a layer's gate and up projections as one, and its down projections.

    Args:
        source: Source of the weights, in whichever layout it has.
        prefix: Name prefix of the layer's MLP.
        experts: Sizes.
        hidden: Size of the input and the output.
    """
    gate_up: AnyMatrix
    down: AnyMatrix
    count, size = experts.num_experts, experts.moe_intermediate_size
    ours, theirs = f"{prefix}.experts", f"{prefix}.switch_mlp"
    if not stacks_experts(source.shape_of, prefix):  # as published
        each = range(count)
        parts = {f"{ours}.{index}.{name}_proj": size for index in each for name in ("gate", "up")}
        gate_up = source.one_by_one(parts, hidden, experts=count)
        down = source.one_by_one({f"{ours}.{index}.down_proj": hidden for index in each}, size, experts=count)
    elif source.shape_of(f"{theirs}.gate_proj.weight"):  # mlx-lm
        parts = {f"{theirs}.{name}_proj": size for name in ("gate", "up")}
        gate_up = source.matrix(parts, count, hidden, axis=1)
        down = source.matrix({f"{theirs}.down_proj": hidden}, count, size, axis=1)
    else:
        gate_up = _stacked(source, f"{ours}.gate_up_proj", count, 2 * size, hidden)
        down = _stacked(source, f"{ours}.down_proj", count, hidden, size)
    return expert_linear(gate_up), expert_linear(down)


def _stacked(source: ParameterSource, name: str, *shape: int) -> ArrayMatrix:
    """Return a tensor as transformers 5 saves it, or with columns and rows swapped, as in Qwen3-VL-MoE."""
    count, out, width = shape
    is_turned = out != width and source.shape_of(name) == (count, width, out)
    return source.experts(name, *shape, is_turned=is_turned)
