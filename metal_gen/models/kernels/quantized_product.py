"""The product of a few rows with a matrix in 4 bits as a kernel, where MLX's own is slow: with CUDA.

Axes: R rows, K inputs, N outputs, G numbers that share a scale.
"""

from dataclasses import dataclass

import mlx.core as mx

from metal_gen.models.kernels.dialect import LANES
from metal_gen.models.kernels.quantized_source import CODE, MOST_ROWS, SPAN, TILE

BITS = 4
GROUP_SIZES = (32, 64, 128)
DTYPES = (mx.bfloat16, mx.float16)


@dataclass(frozen=True)
class Shares:
    """How threads share a product. On an H200, other numbers of them are slower.

    Attributes:
        warps: Rows of lanes of a group. They share the inputs.
        stages: Stages that each of them holds, all but one of them ahead.
        tiles: Tiles of 16 outputs of a group.
    """

    warps: int
    stages: int
    tiles: int

    @property
    def outputs(self) -> int:
        """Number of outputs of a group."""
        return TILE * self.tiles


# A large matrix has enough tiles for all of a GPU; of a small one, more threads share a tile.
OF_MANY_OUTPUTS = Shares(warps=4, stages=3, tiles=2)
OF_FEW_OUTPUTS = Shares(warps=8, stages=2, tiles=1)
MANY_OUTPUTS = 16_384
# For one row of a smaller matrix, MLX's kernel is as fast, and takes 2 us less of the host.
LEAST_NUMBERS_FOR_ONE_ROW = 1 << 23


def can_multiply(rows: mx.array, packed: mx.array, scales: mx.array) -> bool:
    """Return whether the kernel takes these arrays, and gains time.

    Args:
        rows: (R, K).
        packed: Packed numbers of any bits, (N, K * bits / 32) uint32.
        scales: (N, K / G), with one of `GROUP_SIZES` as G.
    """
    inputs, outputs = rows.shape[-1], scales.shape[0]
    return (
        len(rows) <= MOST_ROWS
        and (len(rows) > 1 or inputs * outputs >= LEAST_NUMBERS_FOR_ONE_ROW)
        and rows.dtype == scales.dtype
        and rows.dtype in DTYPES
        and inputs % SPAN == 0
        and outputs % shares_of(outputs).outputs == 0
        and packed.shape == (outputs, inputs * BITS // 32)
    )


def shares_of(outputs: int) -> Shares:
    """Return how threads share a product with so many outputs."""
    return OF_MANY_OUTPUTS if outputs >= MANY_OUTPUTS else OF_FEW_OUTPUTS


def quantized_product(
    rows: mx.array, packed: mx.array, scales: mx.array, biases: mx.array, shares: Shares | None = None
) -> mx.array:
    """Multiply rows by the transposed matrix, as `mx.quantized_matmul` with 4 bits does.

    Args:
        rows: (R, K) with at most `MOST_ROWS` rows, bfloat16 or float16; K is a multiple of `SPAN`.
        packed: Packed numbers, (N, K / 8) uint32; N is a multiple of `shares.outputs`.
        scales: (N, K / G), in the dtype of the rows.
        biases: As the scales.
        shares: How threads share the product; None for what suits its size.

    Returns:
        The product, (R, N), in the dtype of the rows.

    Raises:
        RuntimeError: The kernel cannot be compiled, now or when it is computed.
    """
    outputs, groups = scales.shape
    shares = shares or shares_of(outputs)
    (product,) = CODE(
        [rows, packed, scales, biases],
        [((len(rows), outputs), rows.dtype)],
        sizes={
            "T": rows.dtype,
            "IS_HALF": int(rows.dtype == mx.float16),
            "GROUP": rows.shape[1] // groups,
            "WARPS": shares.warps,
            "STAGES": shares.stages,
            "TILES": shares.tiles,
        },
        grid=(LANES * outputs // shares.outputs, shares.warps, 1),
        group=(LANES, shares.warps, 1),
    )
    return product
