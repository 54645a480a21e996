"""A benchmark's report as a table, or as a list where a table would not fit."""

import io
from collections.abc import Iterator

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from metal_gen.bench.measurement import METAL_GEN, Measurement, Unit
from metal_gen.bench.report import BenchReport
from metal_gen.cli.bench_formats import cells, endings, format_value, heading, place, spread_cells
from metal_gen.cli.console import visible

NARROWEST_TABLE = 76
PLAIN_WIDTH = 80


def print_table(report: BenchReport) -> None:
    """Put the report on a terminal that is stdout."""
    console = RichConsole(markup=False, emoji=False, highlight=False)
    console.print(_render(report, console.width))


def to_plain_table(report: BenchReport) -> str:
    """The same without colours, for a pipe or a file."""
    text = io.StringIO()
    console = RichConsole(
        file=text, width=PLAIN_WIDTH, color_system=None, markup=False, emoji=False, highlight=False
    )
    console.print(_render(report, PLAIN_WIDTH))
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _render(report: BenchReport, width: int) -> RenderableType:
    top = Text(visible("\n".join(heading(report))) + "\n")
    bottom = Text(visible("\n".join(endings(report))), style="" if report.complete else "bold")
    middle: RenderableType = _table(report) if width >= NARROWEST_TABLE else Text("\n".join(_lines(report)))
    return Group(top, middle, *([Text(""), bottom] if bottom.plain else []))


def _grouped(report: BenchReport) -> Iterator[tuple[str, str, list[Measurement]]]:
    """Figures of one name together, in the order in which the first of each came."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for figure in report.own:
        groups.setdefault((figure.section, figure.name), []).append(figure)
    for (section, name), figures in groups.items():
        yield section, name, figures


def _label(figure: Measurement) -> str:
    program = "" if figure.program == METAL_GEN else f"{figure.program}, "
    return f"{program}{place(figure)}"


def _table(report: BenchReport) -> Table:
    compares = bool(report.setup.get("compare"))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", overflow="fold")
    names = ["median", "min", "max", "n", "ceiling", *(["mlx-lm", "ratio"] if compares else [])]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for section, name, figures in _grouped(report):
        if section != before:
            table.add_row(Text(section, style="bold"), *[""] * len(names))
            before = section
        if len(figures) > 1:
            table.add_row(f" {name}")
        for figure in figures:
            label = f"  {_label(figure)}" if len(figures) > 1 else f" {name}"
            table.add_row(label, *cells(report, figure, compares=compares))
    return table


def _lines(report: BenchReport) -> Iterator[str]:
    for section, name, figures in _grouped(report):
        yield f"{section}: {name}"
        for figure in figures:
            median, least, most, n = spread_cells(figure.spread, figure.unit)
            where = f"{_label(figure)}: " if place(figure) else ""
            yield f"  {where}{median}"
            if least:
                yield f"    {least} to {most}, n {n}"
            if figure.ceiling_share is not None:
                yield f"    {format_value(figure.ceiling_share, Unit.SHARE)} of the ceiling"
            other, ratio = report.beside(figure), report.ratio(figure)
            if other is not None and ratio is not None:
                theirs = format_value(other.spread.median, figure.unit)
                yield f"    {other.program} {theirs}, ratio {ratio.median:.2f}"
