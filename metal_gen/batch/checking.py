"""Sees whether every row of a batch could be run, and what the longest needs, without the weights."""

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
    """See whether every row could be run.

    Args:
        rows: As for `run_rows`.
        encoder: Really encodes their prompts, and knows the longest afterwards.
        on_idle: Called while the next row has not come; returns when it may have.
        on_error: Called with each row that could not be run.

    Returns:
        How many rows are good and bad; tokens of prompts, none of texts.
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
