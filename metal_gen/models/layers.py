"""Layers that work on each token separately: projections, norms and the gated MLP.

Between layers, a pass holds one row per token, so that every projection is a plain matrix product.

Axes: R rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.device.device_memory import in_device_memory
from metal_gen.models.kernels.add_norm import add_rms_norm, can_add
from metal_gen.models.matrices.adapted import AnyMatrix
from metal_gen.models.matrices.matrix import computed


@dataclass(frozen=True)
class Linear:
    """x W^T + b, with W of shape (out, in), as checkpoints store it."""

    weight: AnyMatrix
    bias: mx.array | None = None

    def __call__(self, rows: mx.array) -> mx.array:
        """Map (R, in) to (R, out)."""
        return self.weight.times(rows, self.bias)


@dataclass(frozen=True)
class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight, accumulated in float32 (arXiv 1910.07467).

    Args:
        weight: Factor of each number, (hidden,).
        eps: Constant that keeps zeros zero.
        around_zero: The checkpoint stores the weight minus 1.
        adds_by_kernel: Whether a kernel computes sums with their norms that passes its trial here.
    """

    weight: mx.array
    eps: float
    around_zero: bool = False
    adds_by_kernel: bool = False

    @cached_property
    def _scale(self) -> mx.array:
        return computed(self.weight + 1) if self.around_zero else self.weight

    @cached_property
    def _eps(self) -> mx.array:
        return computed(in_device_memory(mx.array([self.eps])))

    def __call__(self, x: mx.array) -> mx.array:
        """Normalize the last axis."""
        return mx.fast.rms_norm(x, self._scale, self.eps)

    def of_sum(self, rows: mx.array, added: mx.array) -> tuple[mx.array, mx.array]:
        """Return rows + added, and this sum normalized; all are (R, hidden)."""
        if self.adds_by_kernel and can_add(rows, added, self._scale):
            return add_rms_norm(rows, added, self._scale, self._eps)
        rows = rows + added
        return rows, self(rows)


@dataclass(frozen=True)
class GatedMLP:
    """down(silu(gate(x)) * up(x)), with gate and up in one product (SwiGLU, arXiv 2002.05202)."""

    gate_up: Linear
    down: Linear

    def __call__(self, rows: mx.array) -> mx.array:
        """Map (R, hidden) to (R, hidden)."""
        return self.down(gated(self.gate_up(rows)))


def gated(gate_up: mx.array) -> mx.array:
    """Return silu(gate) * up, where the input (..., 2 * size) holds both; the result is (..., size)."""
    if gate_up.shape[:-1] == (1,):
        # Each half of a single row is an array of its own then. MLX would copy the product of others.
        gate, up = mx.split(gate_up.reshape(2, -1), 2)
    else:
        gate, up = mx.split(gate_up, 2, axis=-1)
    product = _silu_product if runs_on_cpu() else _joined_silu_product()
    return product(gate, up)


def _silu_product(gate: mx.array, up: mx.array) -> mx.array:
    return gate * mx.sigmoid(gate) * up


@cache
def _joined_silu_product() -> Callable[[mx.array, mx.array], mx.array]:
    """Fuse the product into one operation, for a GPU. On a CPU, MLX would call a C++ compiler for it."""
    return mx.compile(_silu_product, shapeless=True)
