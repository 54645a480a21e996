"""Gathers failed rows by reason: a wrong field name fails every row, and needs one line."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metal_gen.batch.input.rows import RowError

# These bound the memory, whatever the length of the file.
MOST_REASONS = 20
MOST_LINES = 3
# A number outside of quotation marks. Reasons that differ only in such numbers are alike.
QUOTED_OR_NUMBER = re.compile(r'("(?:[^"\\]|\\.)*")|-?\d[\d,.]*')


@dataclass
class AlikeRows:
    """Rows that failed for one reason.

    Attributes:
        number: Line number of the first row.
        line: The first row's line number, reason and hint.
        more: Number of rows after the first one.
        next_numbers: Line numbers of the first few of them.
    """

    number: int
    line: str
    more: int = 0
    next_numbers: list[int] = field(default_factory=list)

    @property
    def shown_next(self) -> str:
        """The numbers of the rows after the first one, as far as they are kept."""
        shown = ", ".join(map(str, self.next_numbers))
        return f"line{'s' if self.more > 1 else ''} {shown}{', ...' if self.more > MOST_LINES else ''}"

    @property
    def more_rows(self) -> str:
        """The number of rows after the first one."""
        return "1 more row" if self.more == 1 else f"{self.more:,} more rows"


class FailedRows:
    """The failed rows of a run, by reason.

    Attributes:
        others: Number of rows with reasons beyond the first `MOST_REASONS`.
    """

    def __init__(self) -> None:
        self._by_reason: dict[tuple[str, str], AlikeRows] = {}
        self.others = 0

    @property
    def groups(self) -> list[AlikeRows]:
        """The rows of each reason, in the order in which the reasons came up."""
        return list(self._by_reason.values())

    def add(self, row: "RowError") -> bool:
        """Count a row; return whether it is the first with its reason."""
        key = _reason_key(row)
        if (alike := self._by_reason.get(key)) is not None:
            alike.more += 1
            if len(alike.next_numbers) < MOST_LINES:
                alike.next_numbers.append(row.number)
            return False
        if len(self._by_reason) == MOST_REASONS:
            self.others += 1
            return False
        self._by_reason[key] = AlikeRows(row.number, failure_line(row))
        return True

    def lines(self) -> list[str]:
        """Return a line for each reason: the first row with it, and which rows are like that one."""
        lines = [
            f"{alike.line}; {alike.more_rows} like it: {alike.shown_next}" if alike.more else alike.line
            for alike in self.groups
        ]
        if self.others:
            rows = "1 row fails" if self.others == 1 else f"{self.others:,} rows fail"
            lines.append(f"{rows} for other reasons; -v shows every row")
        return lines


def failure_line(row: "RowError") -> str:
    """Return the line number of a failed row, with the reason and the hint."""
    hint = f" ({row.hint})" if row.hint else ""
    return f"line {row.number}: {row.reason}{hint}"


def _reason_key(row: "RowError") -> tuple[str, str]:
    from metal_gen.batch.input.rows import RowErrorCode

    if row.code is RowErrorCode.DUPLICATE_ID:  # Each reason quotes another id.
        return row.code.value, ""
    words = QUOTED_OR_NUMBER.sub(lambda found: found[1] or "0", f"{row.reason} ({row.hint})")
    return row.code.value, words
