"""Where checkpoints keep the weights of experts: one by one, or all of a layer in one tensor."""

from collections.abc import Callable

from metal_gen.models.config.experts import ExpertsConfig
from metal_gen.models.experts.linear import ExpertLinear, expert_linear
from metal_gen.models.matrices.adapted import AnyMatrix
from metal_gen.models.matrices.matrix import ArrayMatrix
from metal_gen.models.matrices.parameters import ParameterSource, Shape


def stacks_experts(shape_of: Callable[[str], Shape | None], prefix: str) -> bool:
    """Whether a layer has one tensor for all its experts, rather than a few for each.

    Args:
        shape_of: Gives the shape of a tensor, or None where there is none.
        prefix: Of the layer's MLP.
    """
    return any(
        shape_of(f"{prefix}.{name}") is not None
        for name in ("experts.gate_up_proj", "experts.down_proj", "switch_mlp.gate_proj.weight")
    )


def read_expert_weights(
    source: ParameterSource, prefix: str, experts: ExpertsConfig, hidden: int
) -> tuple[ExpertLinear, ExpertLinear]:
    """Gate and up projections as one, and the down projections, of a layer's experts.

    Args:
        source: Gives the weights, in whichever layout it has.
        prefix: Of the layer's MLP.
        experts: Sizes.
        hidden: Size of what goes in and comes out.
    """
    gate_up: AnyMatrix
    down: AnyMatrix
    count, size = experts.num_experts, experts.moe_intermediate_size
    ours, theirs = f"{prefix}.experts", f"{prefix}.switch_mlp"
    if not stacks_experts(source.shape_of, prefix):  # what is published
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
    """As transformers 5 saves them, or with columns and rows exchanged, as Qwen3-VL-MoE was published."""
    count, out, width = shape
    is_turned = out != width and source.shape_of(name) == (count, width, out)
    return source.experts(name, *shape, is_turned=is_turned)
