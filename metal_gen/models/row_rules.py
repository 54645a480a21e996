"""How many rows to multiply at a time, so that each comes out the same whatever others there are.

A BLAS takes other kernels for few rows than for many, and other ones at the edges of a product; another
kernel adds in another order. Which counts agree is found by trying them, with rows that are all alike: where
a row comes out depends then on nothing but the kernel that computed it. Some libraries agree from a few rows
on, some for multiples of eight, and some for no two counts beyond a dozen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import mlx.core as mx

from metal_gen.models.matrices.matrix import ArrayMatrix, first_rows

ROW_COUNTS: tuple[int, ...] = (*range(1, 18), 24, 31, 32, 33, 64, 100, 128)
# Rows that may be computed for fewer, and those of a block, which are near the slots of a batch.
MOST_PADDED = 32
MOST_IN_BLOCK = 16
# Kernels are chosen by the size of a product up to about a million: more than enough of a large matrix.
TRIED_NUMBERS = 1 << 21
# Numbers of a row that have to come out the same: of few, some would by chance.
COMPARED_NUMBERS = 512
MOST_TRIED_ROWS = 16

# What a row comes out as in a product of so many rows alike; None where that depends on its place.
Outcomes = Callable[[int], list[mx.array] | None]


@dataclass(frozen=True)
class RowRule:
    """Counts of rows that agree.

    Attributes:
        fewest: From so many on.
        multiple: And only multiples of this.
        block: Exactly so many at a time; None where all may be computed at once.
    """

    fewest: int = 1
    multiple: int = 1
    block: int | None = None

    def sizes(self, count: int) -> list[int]:
        """The products to compute for so many rows; together they have as many or more."""
        if self.block is not None:
            return [self.block] * -(-count // self.block)
        return [-(-max(count, self.fewest) // self.multiple) * self.multiple]


def rule_together(tried: Sequence[Outcomes]) -> RowRule:
    """Choose the rule that computes the fewest rows, of those that hold for all counts that were tried.

    Args:
        tried: The matrices that the same rows are multiplied by.
    """

    def outcomes(count: int) -> list[mx.array] | None:
        return _together(tried, count)

    fewest = ROW_COUNTS[-1] + 1
    for count in reversed(ROW_COUNTS):
        if not _agree(outcomes, (count, ROW_COUNTS[-1])):
            break
        fewest = count
    if fewest <= MOST_PADDED:
        return RowRule(fewest=fewest)
    for multiple in (2, 4, 8, 16, 32):
        if _agree(outcomes, [count for count in ROW_COUNTS if count % multiple == 0]):
            return RowRule(multiple=multiple)
    # One row by itself is always as it is.
    blocks = (count for count in reversed(ROW_COUNTS) if count <= MOST_IN_BLOCK)
    return RowRule(block=next(count for count in blocks if outcomes(count) is not None))


def outcomes_of(matrix: ArrayMatrix) -> Outcomes:
    """Try a matrix."""
    out, width = matrix.shape
    # Of a large matrix as many rows as kernels have no edges in.
    some = max(1, TRIED_NUMBERS // width // 64) * 64
    tried = first_rows(matrix, some) if some < out else matrix
    count_tried = min(MOST_TRIED_ROWS, -(-COMPARED_NUMBERS // out))
    rows = mx.random.normal((count_tried, 1, width), key=mx.random.key(0)).astype(matrix.dtype)

    @cache
    def outcomes(count: int) -> list[mx.array] | None:
        products = [tried.times(mx.contiguous(mx.broadcast_to(row, (count, width)))) for row in rows]
        if not mx.all(mx.stack([mx.all(product == product[:1]) for product in products])).item():
            return None
        return [mx.concatenate([product[0] for product in products])]

    return outcomes


def _together(tried: Sequence[Outcomes], count: int) -> list[mx.array] | None:
    found: list[mx.array] = []
    for outcomes in tried:
        if (own := outcomes(count)) is None:
            return None
        found += own
    return found


def _agree(outcomes: Outcomes, counts: Sequence[int]) -> bool:
    first = outcomes(counts[0])
    if first is None:
        return False
    for count in counts[1:]:
        other = outcomes(count)
        if other is None or not all(map(mx.array_equal, first, other)):
            return False
    return True
