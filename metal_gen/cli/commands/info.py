"""`metal-gen info`: describes the machine and the installation, for users and for bug reports."""

from typing import TYPE_CHECKING, Annotated

import typer

from metal_gen.cli.input.setting_options import JsonOption
from metal_gen.cli.output.diagnosis import BACKENDS, PACKAGES
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress import ProgressBar

if TYPE_CHECKING:
    from metal_gen.device_checks.check import CheckResult

# Shown at the end of the help.
EXAMPLES = ("metal-gen info", "metal-gen info --deep --json > info.json")
# Labels of JSON names for people.
LABELS = {
    **{name.replace("-", "_"): name for name in ("metal-gen", "mlx-lm", *PACKAGES, *BACKENDS)},
    "blas": "BLAS",
    "blas_advice": "BLAS advice",
    "can_use_gpu": "may use the GPU",
    "counts_other_programs": "without other programs",
    "cpu_count": "CPUs",
    "cpus": "CPUs that may be used",
    "decode_tps": "speed",
    "device_checks": "device checks",
    "least_logprob": "least log-probability",
    "load_s": "loaded in",
    "macos": "macOS",
    "mlx_says": "MLX says",
    "os": "OS",
    "python": "Python",
    "self_test": "self-test",
    "started_by": "started by",
    "term": "TERM",
    "ttft_s": "first token after",
    "why_no_gpu": "why not",
}


def info(
    json: JsonOption = False,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Check every kernel that models use against the CPU"),
    ] = False,
) -> None:
    """Show versions, device, memory, limits, cache and settings file, and try out the bundled model.

    --deep takes seconds; on an NVIDIA GPU the first time takes minutes, while kernels are compiled. Each
    check is reported on stderr when it is done: all of them in a log, the failed ones on a terminal.

    Anything that cannot be determined is reported as such. The output contains no secrets: only whether
    there is a token, and where settings come from.
    """
    from rich.console import Group
    from rich.text import Text

    from metal_gen.cli.output.diagnosis import diagnose
    from metal_gen.cli.terminal.tables import details_table, print_json, print_rendered

    console = Console()
    console.require_stdout()
    with ProgressBar(console, "checking the device") as bar:

        def show(result: "CheckResult", done: int, total: int) -> None:
            bar.update(done, total)
            if not result.passed:
                console.warn(f"{done}/{total} {result}")
            elif not console.draws_bars:
                console.note(f"{done}/{total} {result}")

        diagnosis = diagnose(show if deep else None)
    if json:
        problems = [getattr(problem, "message", repr(problem)) for problem in diagnosis.problems]
        print_json({**diagnosis.sections, "problems": problems}, console)
    else:
        parts = [
            part
            for name, section in diagnosis.sections.items()
            for part in (
                Text(LABELS.get(name, name), style="bold"),
                details_table({of: value for of, value in section.items() if of != "checks"}, LABELS),
                Text(""),
            )
        ]
        print_rendered(lambda width: Group(*parts[:-1]), console)
    for problem in diagnosis.problems[1:]:
        console.error(getattr(problem, "message", repr(problem)), getattr(problem, "hint", ""))
    if diagnosis.problems:
        raise diagnosis.problems[0]
