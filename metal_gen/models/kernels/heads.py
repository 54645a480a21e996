"""The heads that the kernel for attention is compiled for, and how its threads share the work.

Axes: as in `attend`.
"""

from dataclasses import dataclass

from metal_gen.device.backend import runs_on_metal
from metal_gen.models.kernels.dialect import LANES

# Numbers of queries that a lane holds; numbers of one head that it loads at once, and their bytes.
MOST_NUMBERS, MOST_OF_HEAD, LOAD_BYTES = 64, 8, 16
# Numbers in the memory of a group.
MOST_SHARED, MOST_SHARED_ON_METAL = 8192, 4096
MOST_ROWS = 8
# So few positions are not worth a second kernel, which joins stretches.
ONE_STRETCH = 128
# Rows that keep a large GPU busy, where lanes hold many numbers and where they hold few; fewest positions of
# a stretch, and most stretches of a sequence. Metal's GPUs have fewer cores.
ENOUGH_ROWS, ENOUGH_LIGHT_ROWS, FEW_NUMBERS = 1024, 2048, 16
SHORTEST_STRETCH = 64
MOST_STRETCHES, MOST_ON_METAL = 128, 8


@dataclass(frozen=True)
class Heads:
    """What the kernel is compiled for.

    Attributes:
        num_heads: H.
        num_kv_heads: G.
        head_dim: D.
        rotated: Number of rotated numbers in each head.
        gated: A gate follows each query head in the rows.
        normed: Queries and keys are normalized.
        window: Number of positions that a token sees, with itself; None for all.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotated: int
    gated: bool
    normed: bool
    window: int | None

    @property
    def queries(self) -> int:
        """Number of query heads that share a key/value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def are_supported(self) -> bool:
        """Whether the kernel works for these sizes."""
        half, numbers = self.rotated // 2, self.head_dim // LANES
        if self.head_dim % LANES or numbers not in (1, 2, 4, 8) or self.rotated % 2 or half % numbers:
            return False
        apart = half // numbers
        return self.queries * numbers <= MOST_NUMBERS and apart in (1, 2, 4, 8, 16)

    @property
    def rows(self) -> int:
        """Rows of lanes in a group."""
        rows, most = MOST_ROWS, MOST_SHARED_ON_METAL if runs_on_metal() else MOST_SHARED
        while rows * self.queries * self.head_dim > most:
            rows //= 2
        return rows

    def numbers_of_lane(self, number_bytes: int) -> int:
        """Return how many numbers of a head a lane holds, where those of the cache take so many bytes."""
        fewest = self.head_dim // LANES
        most = min(MOST_OF_HEAD, LOAD_BYTES // number_bytes, MOST_NUMBERS // self.queries)
        return max(fewest, 1 << most.bit_length() - 1)

    def stretches(self, length: int, batch: int) -> int:
        """Return into how many stretches to part positions that are at most so many."""
        if length <= ONE_STRETCH:
            return 1
        most = min(MOST_ON_METAL if runs_on_metal() else MOST_STRETCHES, length // SHORTEST_STRETCH)
        is_light = self.queries * MOST_OF_HEAD <= FEW_NUMBERS
        groups = (ENOUGH_LIGHT_ROWS if is_light else ENOUGH_ROWS) // self.rows
        return max(2, min(most, groups // (self.num_kv_heads * batch)))
