"""How many rows to multiply at a time, so that each result is the same whatever the other rows are.

A BLAS uses different kernels for few rows than for many, and others again at the edges of a product.
Each kernel adds in its own order. Trying row counts shows which of them agree. The tried rows are all
equal, so a result depends only on the kernel that computed it. Some libraries agree from a few rows on,
some for multiples of eight, and some for no two counts above a dozen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import mlx.core as mx

from metal_gen.models.matrices.matrix import ArrayMatrix, first_rows

ROW_COUNTS: tuple[int, ...] = (*range(1, 18), 24, 31, 32, 33, 64, 100, 128)
# Row count up to which fewer rows are padded, and the largest block, which is near the slots of a batch.
MOST_PADDED = 32
MOST_IN_BLOCK = 16
# Kernels depend on the size of a product up to about a million, so this much of a large matrix is enough.
TRIED_NUMBERS = 1 << 21
# Numbers of a row that must agree: with few numbers, some would agree by chance.
COMPARED_NUMBERS = 512
MOST_TRIED_ROWS = 16

# The result of each row in a product of `count` equal rows; None if it depends on the place of the row.
Outcomes = Callable[[int], list[mx.array] | None]


@dataclass(frozen=True)
class RowRule:
    """Row counts whose results agree.

    Attributes:
        fewest: Smallest count that agrees.
        multiple: Counts must be multiples of this.
        block: Compute exactly this many rows at a time; None if all rows can be computed at once.
    """

    fewest: int = 1
    multiple: int = 1
    block: int | None = None

    def sizes(self, count: int) -> list[int]:
        """Return the row counts of the products to compute; they add up to `count` or more."""
        if self.block is not None:
            return [self.block] * -(-count // self.block)
        return [-(-max(count, self.fewest) // self.multiple) * self.multiple]


def rule_together(tried: Sequence[Outcomes]) -> RowRule:
    """Choose the rule that computes the fewest rows, among those that hold for all tried counts.

    Args:
        tried: Outcomes of the matrices that multiply the same rows.
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
    # A single row always agrees with itself.
    blocks = (count for count in reversed(ROW_COUNTS) if count <= MOST_IN_BLOCK)
    return RowRule(block=next(count for count in blocks if outcomes(count) is not None))


def outcomes_of(matrix: ArrayMatrix) -> Outcomes:
    """Return a function that tries a matrix with equal rows."""
    out, width = matrix.shape
    some = _rows_tried(out, width)
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


def _rows_tried(out: int, width: int) -> int:
    """Return the number of rows of a matrix to try: as many as kernels compute without edges."""
    return min(out, max(1, TRIED_NUMBERS // width // 64) * 64)


def trial_bytes(out: int, width: int, number_bytes: int) -> int:
    """Return the memory that trying a matrix takes: a product, and whether its rows are equal."""
    return ROW_COUNTS[-1] * _rows_tried(out, width) * (number_bytes + 1)


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
