"""Products of matrices whose rows come out the same, to the last bit, however many rows there are.

A BLAS takes another kernel for a few rows than for many, and another kernel adds in another order. Which
kernels agree is found by trying them; where few rows do not, rows of zeros are put beside them.
"""

from dataclasses import dataclass, replace

import mlx.core as mx

from metal_gen.models.attention import Attention
from metal_gen.models.experts.experts import Experts, SharedExpert
from metal_gen.models.layers import GatedMLP, Linear
from metal_gen.models.matrices.adapted import AdaptedMatrix, AnyMatrix
from metal_gen.models.matrices.matrix import ArrayMatrix, JoinedMatrix, first_rows
from metal_gen.models.transformer import MLP, DecoderLayer, Transformer

ROW_COUNTS: tuple[int, ...] = (*range(1, 18), 24, 31, 33, 64, 100)
# Kernels are chosen by the size of a product up to about a million: more than enough of a large matrix.
TRIED_NUMBERS = 1 << 22


@dataclass(frozen=True)
class SteadyLinear(Linear):
    """A projection that computes at least so many rows.

    Args:
        fewest_rows: From so many on all counts of rows agree.
    """

    fewest_rows: int = 1

    def __call__(self, rows: mx.array) -> mx.array:
        """Map (R, in) to (R, out)."""
        count = rows.shape[0]
        if count >= self.fewest_rows:
            return super().__call__(rows)
        return super().__call__(mx.pad(rows, [(0, self.fewest_rows - count), (0, 0)]))[:count]


def with_independent_rows(model: Transformer) -> Transformer:
    """The same model, whose projections do not depend on what other rows there are.

    The weights are shared with the model that is given.
    """
    found: dict[object, int] = {}

    def steady(linear: Linear) -> Linear:
        matrix = linear.weight
        fewest = max(steady_part(part) for part in parts_of(matrix))
        return linear if fewest == 1 else SteadyLinear(matrix, linear.bias, fewest)

    def steady_part(matrix: ArrayMatrix) -> int:
        # The shape as well, because packed numbers of different widths and bits take the same words.
        form = (matrix.shape, *((array.shape, array.dtype) for array in matrix.arrays))
        if form not in found:
            found[form] = fewest_agreeing_rows(matrix)
        return found[form]

    def steady_layer(layer: DecoderLayer) -> DecoderLayer:
        attention = layer.attention
        assert isinstance(attention, Attention)
        attention = replace(attention, qkv=steady(attention.qkv), output=steady(attention.output))
        return replace(layer, attention=attention, mlp=steady_mlp(layer.mlp))

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
    """Those that are multiplied by themselves."""
    if isinstance(matrix, AdaptedMatrix):
        return (*parts_of(matrix.base), matrix.down, matrix.up)
    return matrix.parts if isinstance(matrix, JoinedMatrix) else (matrix,)


def fewest_agreeing_rows(matrix: ArrayMatrix) -> int:
    """From how many rows on a projection's first rows do not depend on the number of rows.

    It is one of the numbers that were tried.
    """
    out, width = matrix.shape
    rows = mx.random.normal((ROW_COUNTS[-1], width), key=mx.random.key(0)).astype(matrix.dtype)
    tried = first_rows(matrix, max(1, TRIED_NUMBERS // width)) if out * width > TRIED_NUMBERS else matrix
    reference = tried.times(rows)
    fewest = ROW_COUNTS[-1]
    for count in reversed(ROW_COUNTS[:-1]):
        if not mx.array_equal(tried.times(rows[:count]), reference[:count]).item():
            break
        fewest = count
    return fewest
