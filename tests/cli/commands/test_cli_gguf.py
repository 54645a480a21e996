"""Tests commands with a GGUF file."""

import json

import pytest
from cli_process import run_cli
from gguf_file import gguf_config, write_tiny_gguf


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A tiny model."""
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf"), gguf_config("qwen3"), lambda name: "Q8_0")[0]


def test_a_text_is_generated(file, tmp_path):
    outcome = run_cli(
        "generate", "-p", "hello w", "--model", str(file), "--max-tokens", "4", "--json", home=tmp_path
    )
    assert outcome.code == 0, outcome.stderr
    text = json.loads(outcome.stdout)
    assert text["usage"]["completion_tokens"] == 4


def test_it_is_planned_and_shown(file, tmp_path):
    planned = run_cli("plan", str(file), "--json", home=tmp_path)
    assert b"stored quantized" in run_cli("plan", str(file), home=tmp_path).stdout
    shown = run_cli("models", "show", str(file), "--json", home=tmp_path)
    assert (planned.code, shown.code) == (0, 0)
    assert json.loads(shown.stdout)["model_type"] == "qwen3"
    assert list(json.loads(shown.stdout)["files"]) == ["tiny.gguf"]
