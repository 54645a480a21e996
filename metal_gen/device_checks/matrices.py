"""Checks matrix products: unquantized, and with every packing that a checkpoint may have.

Axes: R rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import mlx.core as mx

from metal_gen.device.backend import on_cpu, runs_on_cpu, runs_on_cuda
from metal_gen.device_checks.check import TOLERANCES, Check, Pair, dtype_name, random_numbers
from metal_gen.models.experts.linear import expert_linear
from metal_gen.models.kernels.quantized_trial import choose_quantized_products
from metal_gen.models.matrices.matrix import ArrayMatrix, DenseMatrix
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix

INPUTS, OUTPUTS, EXPERTS = 512, 384, 8
# One token, a few tokens, and a part of a prompt. Each has its own kernel.
ROWS, PROMPT_ROWS = (1, 5), 70
# Rows of each expert. CUDA uses the kernel of `PROMPT_ROWS` for this number too.
GROUP_ROWS = 40
PACKINGS = (
    *(Packing(bits, size) for bits in (2, 3, 4, 5, 6, 8) for size in (32, 64, 128)),
    Packing(4, 32, "mxfp4"),
    Packing(8, 32, "mxfp8"),
    Packing(4, 16, "nvfp4"),
)
# CUDA compiles a kernel for prompts for each packing, at its first use. Each took 40 s on an H200's machine,
# so only this packing's is checked there.
PACKINGS_OF_CUDA_PROMPTS = (Packing(4, 64),)


def matrix_checks() -> Iterator[Check]:
    """Yield checks of products with one matrix, then with the matrices of experts."""
    for dtype in (mx.float32, mx.bfloat16, mx.float16):
        yield Check(
            f"matrix, {dtype_name(dtype)}",
            TOLERANCES[dtype],
            partial(_products, partial(_dense, dtype), (*ROWS, PROMPT_ROWS)),
        )
    tolerance = TOLERANCES[_dtype_of_packed()]
    for packing in PACKINGS:
        rows = (*ROWS, PROMPT_ROWS) if _checks_prompts(packing) else ROWS
        yield Check(f"matrix, {packing}", tolerance, partial(_products, partial(_packed, packing), rows))
    of_experts = partial(_dense, mx.float32, EXPERTS)
    yield Check("experts, float32", TOLERANCES[mx.float32], partial(_expert_products, of_experts, True))
    for packing in (Packing(4, 64), Packing(8, 64), Packing(4, 32, "mxfp4")):
        packed = partial(_packed, packing, EXPERTS)
        products = partial(_expert_products, packed, _checks_prompts(packing))
        yield Check(f"experts, {packing}", tolerance, products)


def _checks_prompts(packing: Packing) -> bool:
    return packing in PACKINGS_OF_CUDA_PROMPTS or not runs_on_cuda()


def _dtype_of_packed() -> mx.Dtype:
    """Return the dtype in which quantized weights are computed.

    A CPU adds up in the dtype itself, which loses a few percent in bfloat16. CUDA compiles kernels for
    float32 at their first use, which takes half a minute.
    """
    return mx.float32 if runs_on_cpu() else mx.bfloat16


def _dense(dtype: mx.Dtype, *experts: int) -> DenseMatrix:
    return DenseMatrix(random_numbers(4, *experts, OUTPUTS, INPUTS, dtype=dtype, scale=INPUTS**-0.5))


def _packed(packing: Packing, *experts: int) -> QuantizedMatrix:
    dtype = _dtype_of_packed()
    numbers = random_numbers(5, *experts, OUTPUTS, INPUTS, dtype=dtype, scale=INPUTS**-0.5)
    by_kernel = not experts and choose_quantized_products([packing], dtype_name(dtype)).by_kernel
    with on_cpu():
        return replace(QuantizedMatrix.quantize(numbers, packing), by_kernel=by_kernel)


def _products(make_matrix: Callable[[], ArrayMatrix], counts: Sequence[int]) -> Iterator[Pair]:
    matrix = make_matrix()
    for count in counts:
        rows = random_numbers(count, count, INPUTS, dtype=matrix.dtype)
        computed = matrix.times(rows)
        mx.eval(computed)
        with on_cpu():
            yield computed, rows.astype(mx.float32) @ _plain(matrix).T


def _expert_products(make_matrix: Callable[[], ArrayMatrix], grouped: bool) -> Iterator[Pair]:
    """Yield products of rows that choose experts, and of rows that are grouped by expert, as in a prompt."""
    matrix = make_matrix()
    linear = expert_linear(matrix)
    chosen = mx.array([[0, 3], [7, 1], [3, 5]])
    rows = random_numbers(6, 3, 1, INPUTS, dtype=matrix.dtype)
    each = linear.each(rows, chosen)
    mx.eval(each)
    with on_cpu():
        turned = _plain(matrix).swapaxes(1, 2)
        yield each, (rows.astype(mx.float32)[:, :, None] @ turned[chosen])[:, :, 0]
    if not grouped:
        return
    groups = mx.array([0, 2, 2, 6])
    grouped_rows = random_numbers(7, 4, GROUP_ROWS, INPUTS, dtype=matrix.dtype)
    products = linear.grouped(grouped_rows, groups)
    mx.eval(products)
    with on_cpu():
        yield products, grouped_rows.astype(mx.float32) @ turned[groups]


def _plain(matrix: ArrayMatrix) -> mx.array:
    if isinstance(matrix, QuantizedMatrix):
        return matrix.dequantized().astype(mx.float32)
    assert isinstance(matrix, DenseMatrix)
    return matrix.numbers.astype(mx.float32)
