"""Tests `metal-gen completion`."""

import shutil
import subprocess

import pytest

from metal_gen.cli.commands.completion import SHELLS
from metal_gen.errors import ExitCode

pytest_plugins = ("fixtures_cli",)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_printed_and_a_shell_can_read_it(shell, run_here, tmp_path):
    outcome = run_here("completion", shell)
    assert outcome.code == 0
    assert outcome.stderr == ""
    assert b"_METAL_GEN_COMPLETE=complete_" + shell.encode() in outcome.stdout
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_bytes(outcome.stdout)
        subprocess.run([shell, "-n", script], check=True)


def test_another_shell_is_refused_with_those_that_there_are(run_here):
    outcome = run_here("completion", "tcsh")
    assert outcome.code == ExitCode.USAGE
    assert outcome.stdout == b""
    assert "'tcsh'" in outcome.stderr
    assert "bash, zsh, fish" in outcome.stderr
