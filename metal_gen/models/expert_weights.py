"""Where checkpoints keep the weights of experts: one by one, or all of a layer in one tensor."""

import mlx.core as mx

from metal_gen.models.experts import ExpertLinear
from metal_gen.models.experts_config import ExpertsConfig
from metal_gen.models.layers import computed
from metal_gen.models.parameters import ParameterSource


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
    count, size = experts.num_experts, experts.moe_intermediate_size
    ours, theirs = f"{prefix}.experts", f"{prefix}.switch_mlp"
    if source.shape_of(f"{ours}.gate_up_proj") or source.shape_of(f"{ours}.down_proj"):
        gate_up = _stacked(source, f"{ours}.gate_up_proj", count, 2 * size, hidden)
        down = _stacked(source, f"{ours}.down_proj", count, hidden, size)
    elif source.shape_of(f"{theirs}.gate_proj.weight"):  # mlx-lm
        parts = {f"{theirs}.{name}_proj.weight": size for name in ("gate", "up")}
        gate_up = source.stack(parts, count, hidden, axis=1)
        down = source.tensor(f"{theirs}.down_proj.weight", count, hidden, size)
    else:  # what is published
        each = range(count)
        parts = {f"{ours}.{index}.{name}_proj.weight": size for index in each for name in ("gate", "up")}
        gate_up = source.stack(parts, hidden).reshape(count, 2 * size, hidden)
        parts = {f"{ours}.{index}.down_proj.weight": hidden for index in each}
        down = source.stack(parts, size).reshape(count, hidden, size)
    # Computed here, because a lazy view belongs to the thread that made it, and weights are read in another.
    return ExpertLinear(computed(gate_up)), ExpertLinear(computed(down))


def _stacked(source: ParameterSource, name: str, *shape: int) -> mx.array:
    """As transformers 5 saves them, or with columns and rows exchanged, as Qwen3-VL-MoE was published."""
    count, out, width = shape
    is_turned = out != width and source.shape_of(name) == (count, width, out)
    return source.turned(name, *shape) if is_turned else source.tensor(name, *shape)
