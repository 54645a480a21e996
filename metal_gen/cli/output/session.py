"""Describes how this process was started and what it may use: jobs of cron and launchd have less."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

Section = dict[str, object]

# Variables of MLX, Metal and other libraries. Those of this program are left out: they may be private.
VARIABLES = ("MLX_", "METAL_", "MTL_", "CUDA_", "OMP_", "OPENBLAS_", "VECLIB_")
OWN_VARIABLES = "METAL_GEN_"
# The name of a launchd service. For programs with a window it begins with one of these.
LAUNCHD_VARIABLE, WINDOW = "XPC_SERVICE_NAME", ("0", "application.")
MAC_FACTS = {
    "hw.model": "model",
    "machdep.cpu.brand_string": "chip",
    "kern.osproductversion": "macos",
    "vm.swapusage": "swap",
    "sysctl.proc_translated": "is_translated",
}
PATIENCE_S = 5


def describe_session(*, has_mlx: bool) -> Section:
    """Return what started this process, whether it may use a GPU, and the variables of other libraries.

    Args:
        has_mlx: Whether MLX can be imported, and on a Mac finds the GPU.
    """
    processes = ancestors(_process_list(), os.getpid())
    reason = "MLX cannot be used" if not has_mlx else _why_no_gpu()
    return {
        "started_by": started_by(processes, os.environ),
        "processes": processes,
        "can_use_gpu": reason is None,
        "why_no_gpu": reason,
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(VARIABLES) and not name.startswith(OWN_VARIABLES)
        },
    }


def describe_mac() -> Section:
    """Return model, chip, macOS and swap of a Mac, and whether Rosetta translates this process."""
    facts: Section = {}
    for line in _answer("/usr/sbin/sysctl", *MAC_FACTS).splitlines():
        name, _, value = line.partition(": ")
        if name in MAC_FACTS:
            facts[MAC_FACTS[name]] = value
    return facts


def started_by(processes: Sequence[str], variables: Mapping[str, str]) -> str:
    """Return `cron`, `ssh`, `launchd`, `terminal` or `another program`.

    Args:
        processes: Names of the ancestors, from the parent on.
        variables: The environment.
    """
    service = variables.get(LAUNCHD_VARIABLE, "")
    if any(name in ("cron", "crond") for name in processes):
        return "cron"
    if "SSH_CONNECTION" in variables or any(name.startswith("sshd") for name in processes):
        return "ssh"
    if service and not service.startswith(WINDOW):
        return "launchd"
    return "terminal" if variables.get("TERM") else "another program"


def ancestors(listing: str, process: int) -> list[str]:
    """Return the names of a process's ancestors, from the parent on, without the system's first process.

    Args:
        listing: A line for each process: its id, its parent's id and its command.
        process: Id of the process.
    """
    parents = {}
    for line in listing.splitlines():
        words = line.split(None, 2)
        if len(words) == 3 and words[0].isdecimal() and words[1].isdecimal():
            parents[int(words[0])] = int(words[1]), Path(words[2]).name.removeprefix("-")
    names: list[str] = []
    parent = parents.get(process, (0, ""))[0]
    while parent > 1 and parent in parents and len(names) < len(parents):
        parent, name = parents[parent]
        names.append(name)
    return names


def _why_no_gpu() -> str | None:
    """Return why this session cannot compute on a GPU; None if it can."""
    import mlx.core as mx

    from metal_gen.device.backend import runs_on_cpu

    if runs_on_cpu():
        return "this build of MLX computes on the CPU"
    try:
        mx.eval(mx.ones(1) * 2)
    except RuntimeError as error:
        return str(error)
    return None


def _process_list() -> str:
    return _answer("ps", "-axo", "pid=,ppid=,comm=")


def _answer(*command: str) -> str:
    """Return the output of a command of the system; nothing if there is no such command."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")
