"""Makes each row of a matrix product the same, to the last bit, whatever the other rows are.

Which row counts agree depends on the BLAS (`row_rules`). Where few rows do not agree, rows of zeros are
added, or the rows are computed in blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import mlx.core as mx

from metal_gen.models.attention import Attention
from metal_gen.models.experts.experts import Experts, SharedExpert
from metal_gen.models.layers import GatedMLP, Linear
from metal_gen.models.linear_attention.gated_delta_net import GatedDeltaNet
from metal_gen.models.matrices.adapted import AdaptedMatrix, AnyMatrix
from metal_gen.models.matrices.matrix import ArrayMatrix, JoinedMatrix
from metal_gen.models.row_rules import Outcomes, RowRule, outcomes_of, rule_together
from metal_gen.models.transformer import MLP, DecoderLayer, Mixer, Transformer


@dataclass(frozen=True)
class SteadyLinear(Linear):
    """A projection that follows a row rule.

    Args:
        rule: How many rows to compute at a time.
    """

    rule: RowRule = field(default_factory=RowRule)

    def __call__(self, rows: mx.array) -> mx.array:
        """Map (R, in) to (R, out)."""
        count, sizes = rows.shape[0], self.rule.sizes(rows.shape[0])
        if missing := sum(sizes) - count:
            rows = mx.pad(rows, [(0, missing), (0, 0)])
        if len(sizes) == 1:
            product = self.weight.times(rows, self.bias)
        else:
            blocks = mx.split(rows, len(sizes))
            product = mx.concatenate([self.weight.times(block, self.bias) for block in blocks])
        return product[:count] if missing else product


def with_independent_rows(model: Transformer) -> Transformer:
    """Return the same model with projections that do not depend on the other rows.

    The new model shares the weights of the given one.
    """
    found: dict[object, Outcomes] = {}

    def steady(linear: Linear) -> Linear:
        rule = rule_together([tried(part) for part in parts_of(linear.weight)])
        return linear if rule == RowRule() else SteadyLinear(linear.weight, linear.bias, rule)

    def tried(matrix: ArrayMatrix) -> Outcomes:
        # The shape too, because packed numbers of different widths and bits may fill the same words.
        form = (matrix.shape, *((array.shape, array.dtype) for array in matrix.arrays))
        if form not in found:
            found[form] = outcomes_of(matrix)
        return found[form]

    def steady_layer(layer: DecoderLayer) -> DecoderLayer:
        return replace(layer, attention=steady_mixer(layer.attention), mlp=steady_mlp(layer.mlp))

    def steady_mixer(mixer: Mixer) -> Mixer:
        if isinstance(mixer, GatedDeltaNet):
            return replace(mixer, inputs=steady(mixer.inputs), output=steady(mixer.output))
        assert isinstance(mixer, Attention)
        return replace(mixer, qkv=steady(mixer.qkv), output=steady(mixer.output))

    def steady_gated(mlp: GatedMLP) -> GatedMLP:
        return GatedMLP(gate_up=steady(mlp.gate_up), down=steady(mlp.down))

    def steady_mlp(mlp: MLP) -> MLP:
        if isinstance(mlp, Experts):
            shared = mlp.shared
            if shared is not None:
                shared = SharedExpert(gate=steady(shared.gate), mlp=steady_gated(shared.mlp))
            return replace(mlp, router=steady(mlp.router), shared=shared, apart=True)
        assert isinstance(mlp, GatedMLP)
        return steady_gated(mlp)

    return replace(model, layers=tuple(map(steady_layer, model.layers)), head=steady(model.head))


def parts_of(matrix: AnyMatrix) -> tuple[ArrayMatrix, ...]:
    """Return the matrices that are multiplied separately."""
    if isinstance(matrix, AdaptedMatrix):
        return (*parts_of(matrix.base), matrix.down, matrix.up)
    return matrix.parts if isinstance(matrix, JoinedMatrix) else (matrix,)


def whole_product_rows(linear: Linear, most: int) -> int:
    """Return the most rows of a product that takes no more memory than `most` rows without a rule.

    Products in blocks are joined, and are then in memory twice.
    """
    if not isinstance(linear, SteadyLinear):
        return most
    rule = linear.rule
    if rule.block is not None:
        return max(rule.block, most // 2 // rule.block * rule.block)
    return max(1, most // rule.multiple * rule.multiple)


def rows_computed(model: Transformer, count: int) -> int:
    """Return the most rows that any projection of a model with row rules computes for `count` rows."""
    rules = [linear.rule for linear in _projections(model) if isinstance(linear, SteadyLinear)]
    return max((sum(rule.sizes(count)) for rule in rules), default=count)


def _projections(model: Transformer) -> Iterator[Linear]:
    for layer in model.layers:
        mixer = layer.attention
        assert isinstance(mixer, Attention | GatedDeltaNet)
        yield from (mixer.qkv if isinstance(mixer, Attention) else mixer.inputs, mixer.output)
        if isinstance(layer.mlp, GatedMLP):
            yield from (layer.mlp.gate_up, layer.mlp.down)
        elif isinstance(layer.mlp, Experts):
            yield layer.mlp.router
    yield model.head
