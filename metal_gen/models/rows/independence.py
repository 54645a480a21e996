"""Makes each row of a matrix product the same, to the last bit, whatever the other rows are.

Which row counts agree depends on the BLAS (`rules`). Where few rows do not agree, rows of zeros are
added, or the rows are computed in blocks.
"""

from dataclasses import dataclass, field, replace

import mlx.core as mx

from metal_gen.models.experts.experts import Experts
from metal_gen.models.layers import Linear
from metal_gen.models.matrices.adapted import parts_of
from metal_gen.models.matrices.matrix import ArrayMatrix
from metal_gen.models.projections import projections, with_projections
from metal_gen.models.rows.rules import Outcomes, RowRule, outcomes_of, rule_together
from metal_gen.models.transformer import DecoderLayer, Transformer


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

    def apart(layer: DecoderLayer) -> DecoderLayer:
        return replace(layer, mlp=replace(layer.mlp, apart=True)) if isinstance(layer.mlp, Experts) else layer

    changed = with_projections(model, steady)
    return replace(changed, layers=tuple(map(apart, changed.layers)))


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
    rules = [linear.rule for linear in projections(model) if isinstance(linear, SteadyLinear)]
    return max((sum(rule.sizes(count)) for rule in rules), default=count)
