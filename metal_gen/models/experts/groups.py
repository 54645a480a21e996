"""Groups rows by expert, so that an expert's matrix is read once for several rows.

On a GPU, rows are sorted, because its kernels take advantage of that. On a CPU, each expert's rows are
placed in blocks of a fixed size, and each block is one matrix product. The largest possible number of
blocks is known in advance, so nothing waits for a count.

Axes: R rows, K experts of each row, E experts, N groups, M rows of a group.
"""

from dataclasses import dataclass

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu, runs_on_cuda

BLOCK_ROWS = 16
# Grouping pays from this many rows on, counting a row once for each of its experts: in all with Metal, and
# for each expert of the layer elsewhere. MLX's CUDA kernel for sorted rows reads all experts, also those that
# no row has chosen, at about a third of the speed of products with single rows.
FEWEST_SORTED = 64
FEWEST_PER_EXPERT, FEWEST_PER_EXPERT_ON_CUDA = 2, 3


@dataclass(frozen=True)
class Groups:
    """An arrangement of rows.

    Attributes:
        rows: Row at each place, (N, M); rows without meaning fill the groups up.
        experts: Expert of each group, ascending, (N,).
        places: Place of each row for each of its experts, counted over all groups, (R, K).
    """

    rows: mx.array
    experts: mx.array
    places: mx.array


def group_rows(chosen: mx.array, num_experts: int) -> Groups | None:
    """Group rows by their experts, (R, K). Return None if there are too few rows to gain from it."""
    if chosen.size < _fewest_grouped(num_experts):
        return None
    return _blocks(chosen, num_experts) if runs_on_cpu() else _sorted(chosen)


def _fewest_grouped(num_experts: int) -> int:
    if runs_on_cpu():
        return FEWEST_PER_EXPERT * num_experts
    return FEWEST_PER_EXPERT_ON_CUDA * num_experts if runs_on_cuda() else FEWEST_SORTED


def most_places(count: int, num_experts: int) -> int:
    """Return the most places that `count` rows can take, counting a row once for each of its experts."""
    if not runs_on_cpu() or count < _fewest_grouped(num_experts):
        return count
    return _most_blocks(count, num_experts) * BLOCK_ROWS


def _most_blocks(count: int, num_experts: int) -> int:
    """Return the most blocks there can be: each expert has at most one block that is not full."""
    return count // BLOCK_ROWS + min(num_experts, count)


def _sorted(chosen: mx.array) -> Groups:
    order = mx.argsort(chosen.flatten())
    return Groups(
        rows=(order // chosen.shape[1])[:, None],
        experts=chosen.flatten()[order],
        places=mx.argsort(order).reshape(chosen.shape),
    )


def _blocks(chosen: mx.array, num_experts: int) -> Groups:
    flat = chosen.flatten().astype(mx.int32)
    order = mx.argsort(flat)
    experts = flat[order]
    counts = (flat[:, None] == mx.arange(num_experts)).sum(axis=0)
    blocks = (counts + BLOCK_ROWS - 1) // BLOCK_ROWS
    first_row, first_block = mx.cumsum(counts) - counts, mx.cumsum(blocks) - blocks
    place = first_block[experts] * BLOCK_ROWS + mx.arange(flat.size) - first_row[experts]
    most_blocks = _most_blocks(flat.size, num_experts)
    rows = mx.zeros(most_blocks * BLOCK_ROWS, mx.int32)
    rows[place] = order.astype(mx.int32) // chosen.shape[1]
    places = mx.zeros(flat.size, mx.int32)
    places[order] = place
    begun = (first_block <= mx.arange(most_blocks)[:, None]).sum(axis=1)
    return Groups(
        rows=rows.reshape(most_blocks, BLOCK_ROWS),
        experts=begun - 1,
        places=places.reshape(chosen.shape),
    )
