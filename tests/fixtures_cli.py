"""Runs commands in this process, where a process of their own would prove no more."""

import os

import pytest
from cli_process import Outcome

from metal_gen.cli.main import main


@pytest.fixture
def run_here(monkeypatch, tmp_path, capfdbinary):
    """Runs the command line in this process, where nobody has set anything."""
    for name in list(os.environ):
        if name.startswith("METAL_GEN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments):
        code = main(list(arguments))
        stdout, stderr = capfdbinary.readouterr()
        return Outcome(code, stdout, stderr.decode())

    return run_here
