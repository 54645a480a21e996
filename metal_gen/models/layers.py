"""What all Qwen models do to each token by itself: projections, norms, the gated MLP.

Between layers a pass holds one row per token, so that every projection is a plain product of matrices.

Axes: R rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import mlx.core as mx

from metal_gen.backend import runs_on_cpu
from metal_gen.models.matvec import matvec, row_blocks


@dataclass(frozen=True)
class Linear:
    """x W^T + b, with W as checkpoints store it: (out, in)."""

    weight: mx.array
    bias: mx.array | None = None

    @cached_property
    def _matrix(self) -> mx.array:
        """(in, out): the same memory, turned once instead of at every use."""
        return computed(self.weight.T)

    @cached_property
    def _blocks(self) -> mx.array | None:
        """The weight as `matvec` takes it; None where that is no faster."""
        blocks = row_blocks(self.weight)
        return None if blocks is None else computed(blocks)

    def __call__(self, rows: mx.array) -> mx.array:
        """Map (R, in) to (R, out)."""
        if rows.shape[0] == 1 and self._blocks is not None:
            product = matvec(self._blocks, rows)
            return product if self.bias is None else product + self.bias
        if self.bias is None:
            return rows @ self._matrix
        return mx.addmm(self.bias, rows, self._matrix)


@dataclass(frozen=True)
class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight, accumulated in float32 (arXiv 1910.07467).

    Args:
        weight: Of each number.
        eps: Keeps zeros zero.
        around_zero: The weight is stored less 1.
    """

    weight: mx.array
    eps: float
    around_zero: bool = False

    @cached_property
    def _scale(self) -> mx.array:
        return computed(self.weight + 1) if self.around_zero else self.weight

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise the last axis."""
        return mx.fast.rms_norm(x, self._scale, self.eps)


@dataclass(frozen=True)
class GatedMLP:
    """down(silu(gate(x)) * up(x)), with gate and up in one product (SwiGLU, arXiv 2002.05202)."""

    gate_up: Linear
    down: Linear

    def __call__(self, rows: mx.array) -> mx.array:
        """Map (R, hidden) to (R, hidden)."""
        return self.down(gated(self.gate_up(rows)))


def gated(gate_up: mx.array) -> mx.array:
    """silu(gate) * up, of (..., 2 * size) that holds both, to (..., size)."""
    gate, up = mx.split(gate_up, 2, axis=-1)
    product = _silu_product if runs_on_cpu() else _joined_silu_product()
    return product(gate, up)


def _silu_product(gate: mx.array, up: mx.array) -> mx.array:
    return gate * mx.sigmoid(gate) * up


@cache
def _joined_silu_product() -> Callable[[mx.array, mx.array], mx.array]:
    """The same as one operation, for a GPU; for a CPU, MLX would call a C++ compiler."""
    return mx.compile(_silu_product, shapeless=True)


def computed(view: mx.array) -> mx.array:
    """The same, computed: a view is then not made anew at every use."""
    mx.eval(view)
    return view
