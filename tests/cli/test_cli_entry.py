"""Tests Ctrl-C before the program is imported."""

import subprocess
import sys

import pytest
from cli_process import clean_environment

# Sends Ctrl-C in place of the first import of the program.
PROGRAM = """
import os, signal, sys
before = set(sys.modules)
signal.signal(signal.SIGINT, {at_start})
class Interrupt:
    def find_spec(name, *others):
        if name == "metal_gen.cli.main":
            assert "typing" not in sys.modules and "re" not in set(sys.modules) - before
            sys.meta_path.remove(Interrupt)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt)
sys.argv[1:] = ["--version"]
from metal_gen.cli.entry import run
run()
"""


@pytest.mark.parametrize(
    ("at_start", "code", "begins"),
    [("signal.default_int_handler", -2, b""), ("signal.SIG_IGN", 0, b"metal-gen ")],
)
def test_ctrl_c_during_imports_ends_without_a_traceback_unless_it_is_ignored(
    tmp_path, at_start, code, begins
):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(at_start=at_start)],
        env=clean_environment(tmp_path),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, b"")
    assert done.stdout.startswith(begins)
    assert bool(done.stdout) == bool(begins)
