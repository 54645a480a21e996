"""Checks that every row of a batch can be run, and finds the longest one, without loading the weights."""

from collections.abc import Callable, Iterator

from metal_gen.batch.input.encoding import RowEncoder
from metal_gen.batch.input.rows import BatchRow, RowError
from metal_gen.batch.runner import BatchCounts, pending_rows
from metal_gen.text.encoded_prompt import Prompt


def check_rows(
    rows: Iterator[BatchRow | RowError | None],
    encoder: RowEncoder,
    *,
    on_idle: Callable[[], object],
    on_error: Callable[[RowError], None],
) -> BatchCounts:
    """Check that every row can be run.

    Args:
        rows: The rows to check, as for `run_rows`.
        encoder: Encodes each prompt and keeps the length of the longest row.
        on_idle: Called when the next row has not arrived yet; returns when it may have.
        on_error: Called with each row that cannot be run.

    Returns:
        The number of good (`done`) and bad (`failed`) rows, and the total prompt tokens.
    """
    counts = BatchCounts()
    for row in pending_rows(rows, (), counts):
        if row is None:
            on_idle()
            continue
        checked: Prompt | RowError = row if isinstance(row, RowError) else encoder.encode(row)
        if isinstance(checked, RowError):
            counts.failed += 1
            on_error(checked)
        else:
            counts.done += 1
            counts.prompt_tokens += len(checked.ids)
    return counts
