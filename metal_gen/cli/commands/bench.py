"""`metal-gen bench`: measures speed and memory on this machine, compared with the hardware's limits."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from metal_gen.bench.request import ON_REQUEST, SECTIONS, SPECULATION, BenchRequest
from metal_gen.cli.bench.options import FORMATS, read_format, read_request
from metal_gen.cli.completion import Completion, completion_from, completion_of_list
from metal_gen.cli.input.model_preparation import note_bundled_model, prepare_model, require_mlx_for
from metal_gen.cli.input.setting_options import (
    OUTPUT,
    SPECULATION_SETTINGS,
    QuietOption,
    VerboseOption,
    given_arguments,
    settings_in_force,
    with_settings,
)
from metal_gen.cli.output.output_file import OutputFile, existing_file, require_different
from metal_gen.cli.output.report import report_start
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress import PhaseBar
from metal_gen.config.settings import Settings
from metal_gen.errors import UsageError

if TYPE_CHECKING:
    from metal_gen.bench.report import BenchReport

# Shown at the end of the help.
EXAMPLES = (
    "metal-gen bench --only decode,memory",
    "metal-gen bench --model Qwen/Qwen3-0.6B --compare mlx-lm -o bench.json",
)
WORK = "Measuring"


def _work(
    flag: str, metavar: str, help: str, default: str = "none", completion: Completion | None = None
) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        flag,
        metavar=metavar,
        help=help,
        rich_help_panel=WORK,
        show_default=default,
        autocompletion=completion,
    )
    return option


@with_settings(
    *("model", "adapter", "compile", "blas"),
    *("temperature", "top_k", "top_p", "min_p"),
    *("repetition_penalty", "repetition_window", "presence_penalty", "frequency_penalty"),
    *("max_seq_len", "cache_dtype", "model_dtype", "quantize", "rope_scaling"),
    *("chunk_size", "memory_limit_bytes"),
    *SPECULATION_SETTINGS,
)
def bench(
    context: typer.Context,
    compare: Annotated[
        str | None,
        _work(
            "--compare",
            "mlx-lm",
            "Measure mlx-lm too, in turns",
            completion=completion_from(["mlx-lm"]),
        ),
    ] = None,
    only: Annotated[
        str | None,
        _work(
            "--only",
            "NAME[,NAME]",
            f"Measure only these: {', '.join((*SECTIONS, *ON_REQUEST))}",
            f"all but {', '.join(ON_REQUEST)}",
            completion_of_list((*SECTIONS, *ON_REQUEST)),
        ),
    ] = None,
    repeats: Annotated[str, _work("--repeats", "N", "Measure each figure N times", "5")] = "5",
    warmup: Annotated[str, _work("--warmup", "N", "Run N rounds first that do not count", "1")] = "1",
    prompt_tokens: Annotated[
        str | None,
        _work("--prompt-tokens", "N[,N]", "Measure prompts of these lengths", "128,512,1024, if they fit"),
    ] = None,
    depths: Annotated[
        str | None,
        _work(
            "--depths", "N[,N]", "Measure decoding after this many tokens", "0, 1/4, 1/2 and all of the cache"
        ),
    ] = None,
    capacities: Annotated[
        str | None,
        _work("--capacities", "N[,N]", "Compare caches of these sizes", "512,2048,8192, if they fit"),
    ] = None,
    decode_tokens: Annotated[
        str | None, _work("--decode-tokens", "N", "Time this many new tokens", "32")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"Write the report in this format: {', '.join(FORMATS)}",
            show_default="by the output's name, else table",
            autocompletion=completion_from(FORMATS),
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the report to this file, in place of an older one",
            show_default="stdout",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    verbose: VerboseOption = 0,
    quiet: QuietOption = False,
    **settings_given: object,
) -> None:
    """Measure speed and memory on this machine, and compare them with what its hardware allows."""
    console = Console(quiet=quiet, verbosity=verbose)
    request = read_request(
        repeats=repeats,
        warmup=warmup,
        prompt_tokens=prompt_tokens,
        depths=depths,
        capacities=capacities,
        decode_tokens=decode_tokens,
        only=only,
        compare=compare,
    )
    require_different(
        model=existing_file(context.params["model"]),
        config=existing_file(context.params["config"]),
        output=output,
    )
    wanted = read_format(format, output)
    settings = settings_in_force(context.params)
    if output in (None, "-"):
        console.require_stdout()
        _run(settings, request, given_arguments(context.params), wanted, None, console)
        return
    file = OutputFile(Path(output))
    try:
        _run(settings, request, given_arguments(context.params), wanted, file, console)
    finally:
        file.discard()


def _run(
    settings: Settings,
    request: BenchRequest,
    settings_arguments: list[str],
    wanted: str,
    file: OutputFile | None,
    console: Console,
) -> None:
    """Check everything that needs no weights, then measure; write the report even if stopped."""
    from metal_gen.device.backend import require_mlx

    if request.compare:  # Both programs share one MLX: its variables stay as they are.
        require_mlx(settings.blas)
    else:
        require_mlx_for(settings)

    from metal_gen.bench.runners.mlx_lm import require_for_mlx_lm, require_mlx_lm
    from metal_gen.bench.suite import Suite

    if request.compare:
        if settings.adapter:
            raise UsageError("--compare mlx-lm contradicts --adapter", "leave one of them out")
        require_mlx_lm()
        if settings.quantize is not None:
            raise UsageError(
                f"--compare contradicts --quantize {settings.quantize}: mlx-lm cannot quantize on load",
                f"measure what `metal-gen convert MODEL OUT --quantize {settings.quantize}` writes",
            )
    if SPECULATION in request.sections and settings.speculate == "off":
        raise UsageError("--only speculation contradicts speculate = off", "leave one of them out")
    prepared = prepare_model(settings, console)
    if SPECULATION in request.sections and prepared.guesses is None:
        settings = settings.override({"speculate": "lookup"}, "--only speculation")
        prepared = prepare_model(settings, console)
    if request.compare:
        require_for_mlx_lm(prepared.checkpoint.folder)
    note_bundled_model(prepared.settings, console)
    for notice in prepared.notices:
        console.warn(notice)
    report_start(prepared, console)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        progress = _Progress(console)
        suite = Suite(
            settings=settings,
            request=request,
            prepared=prepared,
            settings_arguments=settings_arguments,
            print_texts=_printer_to(nowhere),
            on_progress=progress.update,
        )
        try:
            # Output of mlx-lm must not get into the report.
            with redirect_stdout(sys.stderr):
                suite.run()
        finally:
            progress.close()
            if suite.report.own:
                _write(suite.report, wanted, file, console)


class _Progress:
    """A bar per section on a terminal; a line per section in a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._section = ""
        self._bar = PhaseBar(console)

    def update(self, section: str, done: int, total: int) -> None:
        """Show the progress of a section."""
        if section != self._section and not self._console.draws_bars:
            self._console.note(f"measuring: {section}")
        self._section = section
        self._bar.update(section, done, total)

    def close(self) -> None:
        """Remove the bar from the screen."""
        self._bar.close()


def _printer_to(stream: TextIO) -> Callable[[Sequence[str]], None]:
    """Return a function that prints pieces one by one, as `generate` does, to a stream without terminal."""
    console = Console()

    def print_texts(texts: Sequence[str]) -> None:
        with redirect_stdout(stream):
            for text in texts:
                console.write_text(text)

    return print_texts


def _write(report: "BenchReport", wanted: str, file: OutputFile | None, console: Console) -> None:
    from metal_gen.cli.bench.formats import to_csv, to_json, to_markdown
    from metal_gen.cli.bench.table import render, to_plain_table
    from metal_gen.cli.terminal.tables import print_rendered

    if not report.complete:
        console.warn("stopped before everything was measured: the report is marked as incomplete")
    if file is None and wanted == "table" and console.stdout_is_terminal:
        print_rendered(lambda width: render(report, width), console)
        return
    formats = {"table": to_plain_table, "json": to_json, "csv": to_csv, "markdown": to_markdown}
    text = formats[wanted](report)
    if file is None:
        console.write_text(text)
    else:
        file.write(text)
        console.note(f"the report is in {file.path}")
