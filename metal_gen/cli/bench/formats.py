"""Formats a benchmark report as JSON, CSV and Markdown, and its values for people."""

import csv
import io
import json

from metal_gen.bench.measurement import PARAMETERS, Measurement, Spread, Unit
from metal_gen.bench.report import RATIO_MEANING, BenchReport
from metal_gen.byte_sizes import GIB, KIB, MIB

CSV_COLUMNS = (
    "section",
    "name",
    "unit",
    "program",
    *PARAMETERS,
    *("median", "minimum", "maximum", "n"),
    *("ceiling", "ceiling_share", "ratio", "ratio_minimum", "ratio_maximum"),
    *("model", "dtype", "device", "complete"),
)
# Ending of a figure's name, and its unit for people.
LABELLED = {
    "_bytes_per_s": "",
    "_bytes": "",
    "_tps": "tok/s",
    "_ms": "ms",
    "_us": "µs",
    "_s": "s",
    "_share": "",
    "_ratio": "",
}


def format_value(value: float, unit: Unit) -> str:
    """Format a value for people, with three or four digits; the label has the unit."""
    if unit is Unit.BYTES:
        return _format_bytes(value)
    if unit is Unit.BYTES_PER_SECOND:
        return f"{_format_bytes(value)}/s"
    if unit is Unit.SHARE:
        percent = 100 * value
        return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.2g} %"
    if unit is Unit.COUNT or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"


def _format_bytes(value: float) -> str:
    for size, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(value) >= size:
            number = value / size
            return f"{number:.3g} {name}" if abs(number) < 999.5 else f"{number:,.0f} {name}"
    return f"{value:.0f} B"


def label(measurement: Measurement) -> str:
    """Return a figure's label: `decode, tok/s` for `decode_tps`. Bytes have their unit next to the number."""
    words, unit = measurement.name, ""
    for ending, shown in LABELLED.items():
        if words.endswith(ending):
            words, unit = words.removesuffix(ending), shown
            break
    return words.replace("_", " ") + (f", {unit}" if unit else "")


def place(measurement: Measurement) -> str:
    """Return a figure's parameters: `depth 512, capacity 2,048`."""
    named = [(name, measurement.parameters.get(name)) for name in PARAMETERS]
    return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in named if value is not None)


def environment_lines(report: BenchReport) -> list[str]:
    """Describe the environment of the figures in a few lines."""
    env, setup = report.environment, report.setup
    blas = f", {env['blas']}" if env.get("blas") else ""
    commit = f", commit {_short_commit(env['commit'])}" if env.get("commit") else ""
    versus = f", mlx-lm {env['mlx_lm']}" if setup.get("compare") else ""
    lines = [
        f"{setup['model']}: {setup['num_parameters']:,} parameters in {setup['dtype']}, cache of "
        f"{setup['max_seq_len']:,} tokens in {setup['cache_dtype']}",
        f"{env['device']}, {env['cpu_count']} cores{blas}; {env['os']}",
        f"metal-gen {env['metal_gen']}{commit}, mlx {env['mlx']}{versus}, Python {env['python']}",
        f"n: how often each figure was measured, in turns, after {setup['warmup']} that did not count",
        f"`metal-gen help benchmarks` explains the figures; decode speeds are those of "
        f"{setup['decode_tokens']} greedy tokens",
    ]
    if setup.get("compare"):
        lines.append(f"ratio: {RATIO_MEANING}")
    return lines


def _short_commit(commit: str) -> str:
    name, dash, changed = commit.partition("-")
    return name[:12] + dash + changed


def endings(report: BenchReport) -> list[str]:
    """Return the notes below the figures."""
    incomplete = [] if report.complete else ["INCOMPLETE: stopped before everything was measured"]
    return [*report.notes, *incomplete]


def to_json(report: BenchReport) -> str:
    """Return the report as one JSON object; see `BenchReport.to_dict`."""
    return json.dumps(report.to_dict(), indent=1) + "\n"


def to_csv(report: BenchReport) -> str:
    """Return the report as CSV: a header, then one row per figure and program."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    same = {
        "model": report.setup["model"],
        "dtype": report.setup["dtype"],
        "device": report.environment["device"],
        "complete": str(report.complete).lower(),
    }
    for entry in report.to_dict()["measurements"]:
        ratio = entry["ratio"] or {}
        row = {name: entry.get(name) for name in CSV_COLUMNS} | entry["parameters"] | same
        row |= {"ratio": ratio.get("median")}
        row |= {f"ratio_{end}": ratio.get(end) for end in ("minimum", "maximum")}
        writer.writerow(row)
    return text.getvalue()


def to_markdown(report: BenchReport) -> str:
    """Return the report as a Markdown table for an issue or a README, with the environment above it."""
    compares = bool(report.setup.get("compare"))
    names = ["figure", "at", "median", "min", "max", "n", "of ceiling"]
    names += ["mlx-lm", "ratio"] if compares else []
    aligned = ["---", "---"] + ["---:"] * (len(names) - 2)
    rows = [names, aligned]
    rows += [[figure.name, place(figure), *cells(report, figure, compares=compares)] for figure in report.own]
    lines = [f"- {_escaped(line)}" for line in environment_lines(report)]
    lines += ["", *("| " + " | ".join(map(_escaped, row)) + " |" for row in rows)]
    if ends := endings(report):
        lines += ["", *(f"- {_escaped(line)}" for line in ends)]
    return "\n".join(lines) + "\n"


def cells(report: BenchReport, figure: Measurement, *, compares: bool) -> list[str]:
    """Return median, minimum, maximum, n and share of the ceiling; in a comparison also mlx-lm and ratio."""
    spread = figure.spread
    share = figure.ceiling_share
    row = [
        *spread_cells(spread, figure.unit),
        "" if share is None else format_value(share, Unit.SHARE),
    ]
    if compares:
        other, ratio = report.beside(figure), report.ratio(figure)
        row.append("" if other is None else format_value(other.spread.median, figure.unit))
        row.append("" if ratio is None else f"{ratio.median:.2f}")
    return row


def spread_cells(spread: Spread, unit: Unit) -> list[str]:
    """Return median, minimum, maximum and n; a figure that is not measured has no spread."""
    if spread.n == 1:
        return [format_value(spread.median, unit), "", "", "1"]
    values = (spread.median, spread.minimum, spread.maximum)
    return [*(format_value(value, unit) for value in values), str(spread.n)]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
