"""Whole processes, as a user starts them: up to one new token, and with nothing to do."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metal_gen.bench import process_timer
from metal_gen.bench.measurement import METAL_GEN, MLX_LM, Measurement, Trial, Unit
from metal_gen.bench.request import COLD_START
from metal_gen.device.backend import runs_on_cpu
from metal_gen.errors import MetalGenError
from metal_gen.generation.memory.plan import MemoryPlan

PROMPT = "Tell me a story about a fox."
PACKAGE_FOLDER = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class ProcessCost:
    """The cost of a process.

    Attributes:
        wall_s: Time from its start to its end.
        cpu_s: User and system time of all its threads.
        peak_rss_bytes: Peak resident memory.
    """

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int


def run_process(module: str, arguments: Sequence[str]) -> ProcessCost:
    """Run a module of this package with this interpreter, whatever the working directory contains.

    Raises:
        MetalGenError: The process failed; the message has its last line on stderr.
    """
    command = [sys.executable, "-P", "-m", module, *arguments]
    search_path = [str(PACKAGE_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", process_timer.__file__, *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # In its own process group: an interrupt ends it through this process, and nothing is left running.
        start_new_session=True,
    )
    try:
        output, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    result = json.loads(output)
    if result["exit_code"] != 0:
        words = [line for line in result["stderr"].splitlines() if line.strip()] or ["no message"]
        said = next((line for line in words if line.startswith("metal-gen: ")), words[-1])
        raise MetalGenError(
            f"{module} ended with exit code {result['exit_code']}: {said.removeprefix('metal-gen: ')}",
            f"to reproduce: {shlex.join(['python', '-m', module, *arguments])}",
        )
    return ProcessCost(result["wall_s"], result["cpu_s"], result["peak_rss_bytes"])


def cold_start_trials(
    plan: MemoryPlan, settings_arguments: Sequence[str], compare_with: Path | None
) -> list[Trial]:
    """Return trials of one token by each program, and of metal-gen's `--version` and `--help`.

    Args:
        plan: Memory plan with the sizes of weights and cache.
        settings_arguments: Arguments that give `metal-gen generate` the settings in force.
        compare_with: The checkpoint for mlx-lm; None measures metal-gen only.
    """
    own = ["generate", "--prompt", PROMPT, *settings_arguments, "--max-tokens", "1", "--samples", "1"]
    planned = plan.weights_bytes + plan.cache.nbytes if runs_on_cpu() else None
    trials = [_one_token(METAL_GEN, "metal_gen", own, planned)]
    if compare_with is not None:
        theirs = ["generate", "--model", str(compare_with), "--prompt", PROMPT, "--max-tokens", "1"]
        trials.append(_one_token(MLX_LM, "mlx_lm", theirs, None))
    trials += [_start_only("version_s", "--version"), _start_only("help_s", "--help")]
    return trials


def _one_token(program: str, module: str, arguments: Sequence[str], planned: int | None) -> Trial:
    """Return a trial of wall time, CPU time and peak memory, in total and beyond weights and cache."""
    figures = {"wall_s": Unit.SECONDS, "cpu_s": Unit.SECONDS, "peak_rss_bytes": Unit.BYTES}
    if planned is not None:
        figures["rss_beyond_plan_bytes"] = Unit.BYTES
    measurements = tuple(Measurement(COLD_START, name, unit, program) for name, unit in figures.items())

    def run() -> list[float]:
        cost = run_process(module, arguments)
        values = [cost.wall_s, cost.cpu_s, float(cost.peak_rss_bytes)]
        return values if planned is None else [*values, float(cost.peak_rss_bytes - planned)]

    return Trial(measurements, run)


def _start_only(name: str, argument: str) -> Trial:
    measurement = Measurement(COLD_START, name, Unit.SECONDS)
    return Trial((measurement,), lambda: (run_process("metal_gen", [argument]).wall_s,))
