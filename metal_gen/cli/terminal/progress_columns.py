"""What a progress bar shows beside the bar; imports rich, so it is itself imported only to draw."""

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from metal_gen.byte_sizes import format_bytes

# Cells of a screen: for the numbers beside a bar, and what is left of the others on a narrow one.
BYTES_WIDTH, TOKENS_WIDTH = 38, 26
NARROWEST_DESCRIPTION = 6
NARROWEST_BAR = 12


class _Rate(ProgressColumn):
    """Bytes in a second, in the units of the bytes beside it; rich's own are decimal."""

    def render(self, task: Task) -> Text:
        """Say nothing until there is something to reckon with."""
        return Text("" if task.speed is None else f"{format_bytes(int(task.speed))}/s")


class _Count(ProgressColumn):
    """Tokens so far, once there are some."""

    def render(self, task: Task) -> Text:
        """Say nothing of what is not counted."""
        return Text(f"{task.completed:.0f} tokens" if task.completed else "")


def make_progress(*, is_bytes: bool, has_total: bool) -> Progress:
    """A bar on stderr that is gone when it is stopped; where there is little room, figures alone."""
    console = RichConsole(stderr=True)
    room = console.width - (BYTES_WIDTH if is_bytes else TOKENS_WIDTH)
    bars = [BarColumn()] if room >= NARROWEST_BAR + NARROWEST_DESCRIPTION else []
    column = Column(
        no_wrap=True,
        overflow="ellipsis",
        max_width=max(NARROWEST_DESCRIPTION, room - (NARROWEST_BAR if bars else 0)),
    )
    description = TextColumn("{task.description}", markup=False, table_column=column)
    columns: list[ProgressColumn] = [SpinnerColumn(), description, *bars]
    if not has_total:
        columns = [SpinnerColumn(), description, _Count(), TimeElapsedColumn()]
    elif is_bytes:
        columns += [DownloadColumn(binary_units=True), _Rate(), TimeRemainingColumn(compact=True)]
    else:
        columns += [MofNCompleteColumn(), TimeRemainingColumn()]
    # What is printed to stdout meanwhile is the text, and not for this screen.
    return Progress(*columns, console=console, transient=True, redirect_stdout=False)
