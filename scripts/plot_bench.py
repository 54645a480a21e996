#!/usr/bin/env python3
"""Plots the results of `metal-gen bench --format json`.

    metal-gen bench --compare mlx-lm -o bench.json
    python scripts/plot_bench.py bench.json -o bench.svg                     # all sections in the report
    python scripts/plot_bench.py bench.json -o bench.png --only decode,uncached

Each point is the median of several values, with a bar from the minimum to the maximum. Needs matplotlib:
pip install matplotlib.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metal_gen.bench.measurement import METAL_GEN, MLX_LM, Measurement
from metal_gen.bench.report import BenchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distinguishable without color too: by markers, and by brightness.
COLOURS = {METAL_GEN: "#1f5a96", MLX_LM: "#d98324"}
MARKERS = {METAL_GEN: "o", MLX_LM: "s"}
INK, FAINT, LIMIT = "#333333", "#dddddd", "#777777"
PARTS = {"weights": "#555555", "cache": "#8c8c8c", "working": "#bbbbbb"}
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
PANEL_INCHES = (4.3, 3.1)
HEAD_INCHES = 0.75
DOTS_PER_INCH = 200
MIB = 2**20


def figures(report: BenchReport, section: str, name: str, program: str = METAL_GEN) -> list[Measurement]:
    """Return the figures with this name and program that have values."""
    return [
        figure
        for figure in report.measurements
        if (figure.section, figure.name, figure.program) == (section, name, program) and figure.values
    ]


def draw_spread(
    axes: "Axes", points: Sequence[Measurement], parameter: str, color: str, marker: str, label: str
) -> None:
    """Draw medians joined by a line, each with a bar from the minimum to the maximum."""
    points = sorted(points, key=lambda point: point.parameters[parameter])
    spreads = [point.spread for point in points]
    axes.errorbar(
        [point.parameters[parameter] for point in points],
        [spread.median for spread in spreads],
        yerr=[
            [spread.median - spread.minimum for spread in spreads],
            [spread.maximum - spread.median for spread in spreads],
        ],
        color=color,
        marker=marker,
        markersize=5,
        linewidth=1.6,
        elinewidth=1,
        capsize=3,
        label=label,
    )


def draw_programs(axes: "Axes", report: BenchReport, section: str, name: str, parameter: str) -> None:
    """Draw a line for each program measured."""
    for program in (METAL_GEN, MLX_LM):
        if points := figures(report, section, name, program):
            draw_spread(axes, points, parameter, COLOURS[program], MARKERS[program], program)


def draw_decode(axes: "Axes", report: BenchReport) -> None:
    """Draw decode speed by depth, below the ceiling."""
    draw_programs(axes, report, "decode", "decode_tps", "depth")
    limits = [
        (point.parameters["depth"], point.ceiling)
        for point in figures(report, "decode", "decode_tps")
        if point.ceiling
    ]
    if limits:
        depths, speeds = zip(*limits, strict=True)
        axes.plot(depths, speeds, color=LIMIT, linestyle="--", linewidth=1.2, label="memory bandwidth")
    axes.set(title="Decode by depth", xlabel="tokens in the cache", ylabel="tokens per second")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    from_zero(axes)


def draw_capacity(axes: "Axes", report: BenchReport) -> None:
    """Draw decode speed by cache capacity, at one depth."""
    points = figures(report, "capacity", "decode_tps")
    draw_spread(axes, points, "capacity", COLOURS[METAL_GEN], MARKERS[METAL_GEN], METAL_GEN)
    for point in figures(report, "capacity", "decode_tps", MLX_LM):
        speed = point.spread.median
        axes.axhline(speed, color=COLOURS[MLX_LM], linewidth=1.2, label=f"{MLX_LM} (its cache grows)")
    depth = points[0].parameters["depth"]
    powers_of_two(axes, [point.parameters["capacity"] for point in points])
    axes.set(
        title=f"Decode by capacity, at {depth:,} tokens",
        xlabel="capacity of the cache, tokens",
        ylabel="tokens per second",
    )
    from_zero(axes)


def draw_prefill(axes: "Axes", report: BenchReport) -> None:
    """Draw prefill speed by prompt length."""
    draw_programs(axes, report, "prefill", "prefill_tps", "prompt_tokens")
    lengths = [point.parameters["prompt_tokens"] for point in figures(report, "prefill", "prefill_tps")]
    powers_of_two(axes, lengths)
    axes.set(title="Prefill by length", xlabel="prompt tokens", ylabel="tokens per second")
    from_zero(axes)


def draw_uncached(axes: "Axes", report: BenchReport) -> None:
    """Draw the time of the next token with and without the cache, by text length."""
    from matplotlib.ticker import NullLocator

    cached, uncached = (figures(report, "uncached", name) for name in ("cached_ms", "uncached_ms"))
    both = [*cached, *uncached]
    draw_spread(axes, uncached, "length", LIMIT, "s", "whole text computed again")
    draw_spread(axes, cached, "length", COLOURS[METAL_GEN], "o", "with the cache")
    for point in figures(report, "uncached", "speedup_ratio"):
        slow = next(other for other in uncached if other.parameters == point.parameters)
        axes.annotate(
            f"{point.spread.median:.0f}x",
            (point.parameters["length"], slow.spread.maximum),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            color=INK,
        )
    powers_of_two(axes, [point.parameters["length"] for point in cached])
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.12)
    least, most = (end(value for point in both for value in point.values) for end in (min, max))
    axes.set_ylim(least / 3, 6 * most)
    axes.set(title="The next token, by length", xlabel="tokens so far", ylabel="milliseconds, log scale")


def draw_memory(axes: "Axes", report: BenchReport) -> None:
    """Draw the planned memory by part, next to the measured memory."""
    bottom = 0.0
    for part, color in PARTS.items():
        size = figures(report, "memory", f"planned_{part}_bytes")[0].spread.median / MIB
        axes.bar("planned", size, 0.55, bottom=bottom, color=color, label=part)
        bottom += size
    bars = [("planned", figures(report, "memory", "planned_bytes")[0])]
    if (loading := bars[0][1].spread.median / MIB - bottom) > 0:
        axes.bar("planned", loading, 0.55, bottom=bottom, color="#e8e8e8", label="more while loading")
    for program in (METAL_GEN, MLX_LM):
        for point in figures(report, "memory", "peak_memory_bytes", program):
            bars.append((f"{program}\nmeasured", point))
            axes.bar(bars[-1][0], point.spread.median / MIB, 0.55, color=COLOURS[program])
    for label, point in bars:
        size = point.spread.median / MIB
        axes.annotate(f"{size:,.0f}", (label, size), xytext=(0, 3), textcoords="offset points", ha="center")
    axes.margins(y=0.35)
    tokens = bars[0][1].parameters["prompt_tokens"]
    axes.set(title=f"Peak memory, prompt of {tokens:,} tokens", ylabel="MiB")


PANELS: dict[str, tuple[str, Callable[["Axes", BenchReport], None]]] = {
    "decode": ("decode_tps", draw_decode),
    "capacity": ("decode_tps", draw_capacity),
    "prefill": ("prefill_tps", draw_prefill),
    "uncached": ("uncached_ms", draw_uncached),
    "memory": ("peak_memory_bytes", draw_memory),
}


def from_zero(axes: "Axes") -> None:
    """Start the axis at zero, with some room above."""
    axes.set_ylim(0, 1.12 * axes.get_ylim()[1])


def powers_of_two(axes: "Axes", sizes: Sequence[int]) -> None:
    """Make the axis logarithmic, labelled with exactly the measured sizes."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())


def draw(report: BenchReport, names: Sequence[str]) -> "Figure":
    """Draw panels side by side, two in a row."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    width, height = columns * PANEL_INCHES[0], rows * PANEL_INCHES[1] + HEAD_INCHES
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
        figure.suptitle(heading(report), fontsize=9)
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, name in zip(grid, names, strict=False):
            PANELS[name][1](axes, report)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color=FAINT, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.yaxis.set_major_formatter("{x:,.0f}")
            axes.legend(frameon=False, fontsize=8)
        for axes in grid[len(names) :]:
            axes.set_visible(False)
        figure.canvas.draw()
    return figure


def heading(report: BenchReport) -> str:
    """Return model, dtype, machine, versions, and how the values were taken."""
    env, setup = report.environment, report.setup
    versus = f", mlx-lm {env['mlx_lm']}" if setup["compare"] else ""
    lines = [
        f"{Path(str(setup['model'])).name}, {setup['dtype']}; {env['device']}, {env['cpu_count']} cores",
        f"metal-gen {env['metal_gen']}, mlx {env['mlx']}{versus}; "
        f"median of {setup['repeats']}, bars from minimum to maximum",
    ]
    return "\n".join(lines if report.complete else [*lines, "incomplete: stopped early"])


def main() -> None:
    """Read the report, draw it, and write the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="JSON of metal-gen bench")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench.svg"), help="an .svg or a .png")
    parser.add_argument("--only", help=f"some of {','.join(PANELS)} [default: all in the report]")
    arguments = parser.parse_args()
    try:
        report = BenchReport.from_dict(json.loads(arguments.report.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{arguments.report} is not a report of metal-gen bench: {error}")
    there = [name for name, (figure, _) in PANELS.items() if figures(report, name, figure)]
    names = arguments.only.split(",") if arguments.only else there
    if not names:
        sys.exit(f"{arguments.report} has nothing to draw")
    if missing := [name for name in names if name not in there]:
        sys.exit(
            f"the report has nothing about {', '.join(missing)}; there is {', '.join(there) or 'nothing'}"
        )
    if arguments.output.suffix not in (".svg", ".png"):
        sys.exit(f"{arguments.output} must end in .svg or .png")
    try:
        draw(report, names).savefig(arguments.output)
    except ImportError:
        sys.exit("drawing needs matplotlib: pip install matplotlib")
    except OSError as error:
        sys.exit(f"{arguments.output} cannot be written: {error.strerror}")


if __name__ == "__main__":
    main()
