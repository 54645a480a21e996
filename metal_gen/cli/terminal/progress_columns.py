"""The columns of a progress bar; imports rich, so import this module only to draw."""

from rich.console import Console as RichConsole
from rich.console import ConsoleDimensions
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

# Columns of the screen: for the numbers next to a bar, and the minimum of the others.
BYTES_WIDTH, TOKENS_WIDTH = 38, 26
NARROWEST_DESCRIPTION = 6
NARROWEST_BAR = 12
# What a terminal shows of Ctrl-C, at the end of a bar. In the next line, it would keep the bar from being
# erased.
ECHO = "^C"


class _Rate(ProgressColumn):
    """Bytes per second, in the binary units of the bytes next to it; rich's own units are decimal."""

    def render(self, task: Task) -> Text:
        """Return the rate; nothing until one is known."""
        return Text("" if task.speed is None else f"{format_bytes(int(task.speed))}/s")


class _Count(ProgressColumn):
    """The number of tokens so far, if there are any."""

    def render(self, task: Task) -> Text:
        """Return the count; nothing if there is none."""
        return Text(f"{task.completed:.0f} tokens" if task.completed else "")


class ScreenOfBars(RichConsole):
    """The screen on stderr, less what a terminal shows of Ctrl-C."""

    def __init__(self) -> None:
        super().__init__(stderr=True)

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """The size of the screen that bars may take."""
        width, height = super().size
        return ConsoleDimensions(max(1, width - len(ECHO)), height)


def make_progress(*, is_bytes: bool, has_total: bool) -> Progress:
    """Create a bar on stderr that disappears when stopped; a narrow terminal shows only figures."""
    console = ScreenOfBars()
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
    # Text printed to stdout meanwhile is the answer, which must not go to this screen.
    return Progress(*columns, console=console, transient=True, redirect_stdout=False)
