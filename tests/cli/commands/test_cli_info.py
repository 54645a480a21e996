"""Tests that `metal-gen info` reports what it can, whatever is broken."""

import json
import math

import mlx.core as mx
import pytest

from metal_gen import __version__
from metal_gen.device.backend import device_name
from metal_gen.errors import BackendError
from metal_gen.generation import self_test
from metal_gen.generation.self_test import REST, REST_TOKENS, STORY, SelfTest
from metal_gen.generation.text_generation import load, stream_generate

pytest_plugins = ("fixtures_cli",)

UNEXPECTED, CONFIGURATION = 1, 3


def test_it_tells_what_it_runs_with_and_that_it_works(run_here, tmp_path, monkeypatch):
    monkeypatch.setenv("METAL_GEN_TOP_K", "7")
    monkeypatch.setenv("METAL_GEN_TOPK", "7")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("METAL_GEN_SYSTEM", "a secret")
    outcome = run_here("info", "--json")
    assert (outcome.code, outcome.stderr) == (0, "")
    told = json.loads(outcome.stdout)
    assert told["versions"]["metal_gen"] == __version__
    assert told["device"]["device"] == device_name()
    assert told["memory"]["total_bytes"] >= told["memory"]["available_bytes"] > 0
    assert told["cache"]["folder"] == str(tmp_path / "hf" / "hub")
    assert told["cache"]["has_token"] is True
    assert told["settings"]["set"] == {"top_k": "METAL_GEN_TOP_K", "system": "METAL_GEN_SYSTEM"}
    assert told["settings"]["unknown_variables"] == ["METAL_GEN_TOPK"]
    assert told["self_test"]["passed"] is True
    assert told["self_test"]["decode_tps"] > 0
    assert told["problems"] == []
    assert b"secret" not in outcome.stdout


def test_it_is_a_line_for_each_thing_in_a_pipe(run_here, monkeypatch):
    monkeypatch.setattr(self_test, "run_self_test", lambda: SelfTest(REST, -0.1, 0.1, 0.1, 9.0))
    outcome = run_here("info")
    lines = outcome.stdout.decode().splitlines()
    assert outcome.code == 0
    assert f"metal-gen        {__version__}" in lines
    assert ["passed", "yes"] in [line.split() for line in lines]
    assert lines.count("self-test") == 1
    assert ["speed", "9", "tok/s"] in [line.split() for line in lines]


def test_what_mlx_says_in_bytes_is_shown_as_a_size(run_here, monkeypatch):
    """MLX reports these on a Mac."""
    said = {"memory_size": 16 * 2**30, "max_buffer_length": 2**33, "resource_limit": 499000}
    monkeypatch.setattr(mx, "device_info", lambda: {**said, "device_name": "Apple M4"})
    monkeypatch.setattr(self_test, "run_self_test", lambda: SelfTest(REST, -0.1, 0.1, 0.1, 9.0))
    shown = run_here("info").stdout.decode()
    for line in ("memory_size 16.00 GiB", "max_buffer_length 8.00 GiB", "resource_limit 499,000"):
        assert line in shown


def test_what_is_broken_does_not_hide_the_rest(run_here, monkeypatch, tmp_path):
    def refuse(blas):
        raise BackendError("MLX has no backend on this machine", "install one")

    monkeypatch.setattr("metal_gen.device.backend.require_mlx", refuse)
    (tmp_path / "config" / "metal-gen").mkdir(parents=True)
    (tmp_path / "config" / "metal-gen" / "config.toml").write_text("[cache")
    outcome = run_here("info", "--json")
    told = json.loads(outcome.stdout)
    assert outcome.code == CONFIGURATION
    assert {"versions", "limits", "cache", "settings", "terminal"} <= told.keys()
    assert {"device", "self_test"}.isdisjoint(told)
    assert "not valid TOML" in told["problems"][0]
    assert told["problems"][1] == "MLX has no backend on this machine"
    assert "hint: install one" in outcome.stderr


@pytest.mark.parametrize(("text", "logprob"), [("else", -0.1), (REST, math.nan)])
def test_a_machine_that_computes_something_else_is_found_out(run_here, monkeypatch, text, logprob):
    monkeypatch.setattr(self_test, "run_self_test", lambda: SelfTest(text, logprob, 0.1, 0.1, 9.0))
    outcome = run_here("info", "--json")
    told = json.loads(outcome.stdout)
    assert outcome.code == UNEXPECTED
    assert told["self_test"]["passed"] is False
    assert "the self-test failed" in told["problems"][0]
    assert "the self-test failed" in outcome.stderr


def test_the_text_of_the_self_test_hangs_on_no_rounding():
    """Of two nearly equally probable tokens, another backend could choose the other one."""
    model = load(model_dtype="float32")
    pieces = list(
        stream_generate(model, STORY, raw=True, temperature=0.0, max_tokens=REST_TOKENS, logprobs=2)
    )
    gaps = []
    for piece in pieces:
        (_, first), (_, second) = piece.logprobs.top_model_logprobs
        gaps.append(first - second)
    assert len(gaps) == REST_TOKENS
    assert min(gaps) > math.log(50)
    assert "".join(piece.text for piece in pieces) == REST
