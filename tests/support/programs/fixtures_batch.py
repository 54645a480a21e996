"""Runs `metal-gen batch` in the test's own process, with a model that takes a millisecond for a token."""

import pytest

pytest_plugins = ("fixtures_cli", "fixtures_text")


@pytest.fixture
def batch(run_here, gambler, monkeypatch):
    """Run a batch as `run_here` runs a command, with a model whose texts depend on seed and row."""
    monkeypatch.setenv("METAL_GEN_MODEL", gambler)

    def batch(*arguments):
        return run_here("batch", *arguments)

    return batch
