"""Whether this device may use the kernel for products with matrices in 4 bits."""

from collections.abc import Iterable, Sequence
from functools import cache, partial

import mlx.core as mx

from metal_gen.device.backend import dtype_named, runs_on_cuda
from metal_gen.models.kernels.choice import BY_KERNEL, PLAIN, Choice
from metal_gen.models.kernels.passed import choice_by_trial, trial_key
from metal_gen.models.kernels.quantized_product import (
    BITS,
    DTYPES,
    GROUP_SIZES,
    OF_FEW_OUTPUTS,
    OF_MANY_OUTPUTS,
    Shares,
    quantized_product,
)
from metal_gen.models.kernels.quantized_source import CODE, MOST_ROWS, SPAN
from metal_gen.models.kernels.trial import Trial, random_arrays
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix

# Largest difference, as a share of the largest number: one rounding of the result.
TOLERANCE = {mx.float16: 2e-3, mx.bfloat16: 1e-2}
# Some rows of lanes take two spans, others one.
TRIED_INPUTS, TRIED_OUTPUTS = 9 * SPAN, 64


def choose_quantized_products(packings: Iterable[Packing], dtype: str) -> Choice:
    """Return how to multiply a few rows by quantized matrices here; the first call tries the kernel.

    Args:
        packings: Packings of the matrices.
        dtype: Dtype of computation.
    """
    sizes = {packing.group_size for packing in packings if packing.has_biases and packing.bits == BITS}
    tried = sorted(sizes.intersection(GROUP_SIZES))
    if not tried or dtype_named(dtype) not in DTYPES or not runs_on_cuda():
        return PLAIN
    choices = [_chosen(size, dtype_named(dtype)) for size in tried]
    return next((choice for choice in choices if not choice.by_kernel), BY_KERNEL)


@cache
def _chosen(group_size: int, dtype: mx.Dtype) -> Choice:
    both = (OF_FEW_OUTPUTS, OF_MANY_OUTPUTS)
    trials = [
        partial(QuantizedTrial, rows, group_size, dtype, shares) for shares in both for rows in (1, MOST_ROWS)
    ]
    return choice_by_trial(trial_key(CODE, group_size, dtype, both), trials, TOLERANCE[dtype])


class QuantizedTrial(Trial):
    """Random rows and a random matrix.

    Args:
        rows: Number of rows.
        group_size: Numbers that share a scale.
        dtype: Dtype of the rows.
        shares: How threads share the product.
    """

    def __init__(self, rows: int, group_size: int, dtype: mx.Dtype, shares: Shares) -> None:
        self._shares = shares
        numbers = random_arrays([(rows, TRIED_INPUTS), (TRIED_OUTPUTS, TRIED_INPUTS)])
        self._rows, matrix = (each.astype(dtype) for each in numbers)
        self._matrix = QuantizedMatrix.quantize(matrix, Packing(BITS, group_size))
        mx.eval(self._rows)

    def by_kernel(self) -> Sequence[mx.array]:
        """Return the product."""
        packed, scales, biases = self._matrix.arrays
        return [quantized_product(self._rows, packed, scales, biases, self._shares)]

    def plainly(self) -> Sequence[mx.array]:
        """See `Trial`."""
        return [self._rows.astype(mx.float32) @ self._matrix.computing_in(mx.float32).dequantized().T]
