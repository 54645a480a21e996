"""Runs the command line like a shell: in its own process, with pipes or a terminal."""

import os
import pty
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 60
RUN = ["-m", "metal_gen"]
# Python that a process of its own begins with.
ON_DEVICE = ""
if os.environ.get("METAL_GEN_TEST_DEVICE") == "cpu":
    ON_DEVICE = "import mlx.core as mx; mx.set_default_device(mx.cpu)"
    RUN = ["-c", f"{ON_DEVICE}; import runpy; runpy.run_module('metal_gen', run_name='__main__')"]
# Variables that would change colors, languages, settings or paths.
DROPPED = ("METAL_GEN_", "HF_", "XDG_", "LC_", "PYTHON", "GITHUB_")
DROPPED_NAMES = ("LANG", "LANGUAGE", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "COLUMNS", "LINES", "COLORTERM")


@dataclass(frozen=True)
class Outcome:
    """The result of a process. `screen` is the output on a terminal, if one was attached."""

    code: int
    stdout: bytes
    stderr: str
    screen: bytes = b""


def clean_environment(home: Path, **changes: str | None) -> dict[str, str]:
    """Return an environment that is the same everywhere; None removes a variable."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(DROPPED) and name not in DROPPED_NAMES
    }
    environment = {
        **inherited,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "PYTHONPATH": str(ROOT),
        **changes,
    }
    return {name: value for name, value in environment.items() if value is not None}


def command(*arguments: str | bytes, redirect: str = "") -> list[str | bytes]:
    """Return the command line; `redirect` is in shell syntax, such as `<&-` to close standard input."""
    program = [sys.executable, *RUN, *arguments]
    return ["sh", "-c", f'exec "$@" {redirect}', "sh", *program] if redirect else program


def run_cli(
    *arguments: str | bytes, home: Path, stdin: bytes | None = None, redirect: str = "", **changes: str | None
) -> Outcome:
    """Run to the end.

    Args:
        arguments: After `metal-gen`.
        home: Stands in for the home folder, and is the working directory.
        stdin: What is piped in; None is /dev/null.
        redirect: As for `command`.
        changes: As for `clean_environment`.
    """
    source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done = subprocess.run(
        command(*arguments, redirect=redirect),
        env=clean_environment(home, **changes),
        cwd=home,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        **source,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


def start_cli(
    *arguments: str, home: Path, stdin: int = subprocess.DEVNULL, before: str = "", **changes: str | None
) -> subprocess.Popen:
    """Start, with stdout and stderr piped to the caller.

    Args:
        arguments: After `metal-gen`.
        home: As for `run_cli`.
        stdin: As for `Popen`.
        before: Python that is run first in the same process.
        changes: As for `clean_environment`.
    """
    code = f"{ON_DEVICE}\n{before}\nfrom metal_gen.cli.main import run\nrun()"
    program = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        program if before else command(*arguments),
        env=clean_environment(home, **changes),
        cwd=home,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run_in_terminal(
    *arguments: str, home: Path, attached: tuple[str, ...], columns: int = 80, **changes: str | None
) -> Outcome:
    """Run to the end with some of `stdin`, `stdout` and `stderr` on a terminal.

    The others are /dev/null for stdin and files for what is written. The terminal hands newlines on as they
    are, and nobody types.
    """
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        streams = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
        streams.update(dict.fromkeys(attached, slave))
        process = subprocess.Popen(
            command(*arguments), env=clean_environment(home, **changes), cwd=home, **streams
        )
        os.close(slave)
        try:
            screen = _read_all(master)
            code = process.wait(TIMEOUT_S)
        finally:
            process.kill()
            os.close(master)
        stdout.seek(0)
        stderr.seek(0)
        return Outcome(code, stdout.read(), stderr.read().decode(), screen)


def _read_all(descriptor: int) -> bytes:
    """Read until the other end is closed, which Linux reports as an error."""
    chunks = []
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks)
