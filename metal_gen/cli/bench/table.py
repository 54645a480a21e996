"""Formats a benchmark report as a table, or as a list if a table would not fit."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from metal_gen.bench.measurement import METAL_GEN, Measurement, Unit
from metal_gen.bench.report import BenchReport
from metal_gen.cli.bench.formats import (
    cells,
    endings,
    environment_lines,
    format_value,
    label,
    place,
    spread_cells,
)
from metal_gen.cli.terminal.tables import to_plain
from metal_gen.control_characters import visible

NARROWEST_TABLE = 76
PLAIN_WIDTH = 80


def to_plain_table(report: BenchReport) -> str:
    """Return the report without colors, for a pipe or a file."""
    return to_plain(render(report, PLAIN_WIDTH), PLAIN_WIDTH)


def render(report: BenchReport, width: int) -> RenderableType:
    """Return the report for a terminal of this width."""
    top = Text(visible("\n".join(environment_lines(report))) + "\n")
    bottom = Text(visible("\n".join(endings(report))), style="" if report.complete else "bold")
    middle: RenderableType = _table(report) if width >= NARROWEST_TABLE else Text("\n".join(_lines(report)))
    return Group(top, middle, *([Text(""), bottom] if bottom.plain else []))


def _sections(report: BenchReport) -> Iterator[tuple[str, dict[str, list[Measurement]]]]:
    """Yield each section's heading, and its figures by label, in the order in which they were measured.

    The heading includes the parameters if they are the same for all figures of the section.
    """
    for section, figures in groupby(report.own, key=lambda figure: figure.section):
        by_name: dict[str, list[Measurement]] = {}
        labels = set()
        for figure in figures:
            by_name.setdefault(label(figure), []).append(figure)
            labels.add(_label(figure))
        heading = f"{section}, {labels.pop()}" if len(labels) == 1 and labels != {""} else section
        yield heading, by_name


def _label(figure: Measurement) -> str:
    program = "" if figure.program == METAL_GEN else f"{figure.program}, "
    return f"{program}{place(figure)}"


def _needs_labels(heading: str, figures: Sequence[Measurement]) -> bool:
    """Return whether figures need their parameters shown because the heading does not include them."""
    return bool(_label(figures[0])) and not heading.endswith(f", {_label(figures[0])}")


def _table(report: BenchReport) -> Table:
    compares = bool(report.setup.get("compare"))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", overflow="fold")
    names = ["median", "min", "max", "n", "ceiling", *(["mlx-lm", "ratio"] if compares else [])]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for heading, by_name in _sections(report):
        table.add_row(Text(heading, style="bold"), *[""] * len(names))
        for name, figures in by_name.items():
            labelled = _needs_labels(heading, figures)
            if labelled:
                table.add_row(f" {name}")
            for figure in figures:
                first = f"  {_label(figure)}" if labelled else f" {name}"
                table.add_row(first, *cells(report, figure, compares=compares))
    return table


def _lines(report: BenchReport) -> Iterator[str]:
    for heading, by_name in _sections(report):
        yield heading
        for name, figures in by_name.items():
            yield f" {name}"
            for figure in figures:
                yield from _figure_lines(report, figure, labelled=_needs_labels(heading, figures))


def _figure_lines(report: BenchReport, figure: Measurement, *, labelled: bool) -> Iterator[str]:
    median, least, most, n = spread_cells(figure.spread, figure.unit)
    yield f"  {_label(figure)}: {median}" if labelled else f"  {median}"
    if least:
        yield f"    {least} to {most}, n {n}"
    if figure.ceiling_share is not None:
        yield f"    {format_value(figure.ceiling_share, Unit.SHARE)} of the ceiling"
    other, ratio = report.beside(figure), report.ratio(figure)
    if other is not None and ratio is not None:
        theirs = format_value(other.spread.median, figure.unit)
        yield f"    {other.program} {theirs}, ratio {ratio.median:.2f}"
