"""Tests that `metal-gen config` shows the settings in force and never damages the user's file."""

import json
import os

import pytest

from metal_gen.config.settings import SETTINGS
from metal_gen.config.settings_file import commented_settings

pytest_plugins = ("fixtures_cli", "fixtures_text")

USAGE, CONFIGURATION = 2, 3
OWN_FILE = "config/metal-gen/config.toml"


def test_every_setting_is_shown_with_its_source(run_here, tmp_path, monkeypatch):
    monkeypatch.setenv("METAL_GEN_SEED", "7")
    file = tmp_path / "given.toml"
    file.write_text('[sampling]\nlogit_bias = { "a" = 1 }\n[generation]\nsystem = "a\\u001b"\n')
    outcome = run_here("config", "show", "--config", file)
    assert (outcome.code, outcome.stderr) == (0, "")
    rows = {line.split()[0]: line.split(None, 1)[1] for line in outcome.stdout.decode().splitlines()}
    assert list(rows) == ["setting", *SETTINGS]
    assert rows["seed"].split() == ["7", "METAL_GEN_SEED"]
    assert rows["logit_bias"].startswith('{ "a" = 1.0 }')
    assert rows["logit_bias"].endswith(str(file))
    assert rows["top_k"].split() == ["not", "set", "default"]
    shown = json.loads(run_here("config", "show", "--config", file, "--json").stdout)
    assert shown["logit_bias"]["value"] == {"a": 1.0}
    assert shown["system"] == {
        "value": "a\x1b",
        "source": str(file),
        "section": "generation",
        "key": "system",
        "variable": "METAL_GEN_SYSTEM",
    }
    assert shown["top_k"]["value"] is None


def test_a_misspelt_variable_is_reported_on_stderr(run_here, monkeypatch, speaker):
    monkeypatch.setenv("METAL_GEN_MAX_TOKEN", "3")
    said = "metal-gen: unknown variable METAL_GEN_MAX_TOKEN (ignored); did you mean METAL_GEN_MAX_TOKENS?\n"
    for arguments in (("config", "show", "--json"), ("plan", "--json")):
        outcome = run_here(*arguments)
        assert outcome.stderr == said
        json.loads(outcome.stdout)
    assert run_here("generate", "--model", speaker, "-p", "hi", "-q").stderr == ""


def test_scaling_of_positions_is_a_table(run_here, tmp_path):
    (tmp_path / "long.toml").write_text('[model]\nrope_scaling = { rope_type = "linear", factor = 2 }\n')
    outcome = run_here("config", "show", "--config", "long.toml", "--json")
    assert json.loads(outcome.stdout)["rope_scaling"]["value"] == {"rope_type": "linear", "factor": 2.0}
    assert b'"rope_type" = "linear"' in run_here("config", "show", "--config", "long.toml").stdout


def test_what_cannot_be_read_is_not_shown(run_here, monkeypatch):
    monkeypatch.setenv("METAL_GEN_SEED", "x")
    outcome = run_here("config", "show")
    assert (outcome.code, outcome.stdout) == (CONFIGURATION, b"")
    assert "METAL_GEN_SEED" in outcome.stderr


def test_a_file_is_made_and_not_written_over(run_here, tmp_path):
    own = tmp_path / OWN_FILE
    assert run_here("config", "path").stdout == f"{own}\n".encode()
    assert run_here("config", "check", own).code == CONFIGURATION
    without = run_here("config", "check")
    assert (without.code, without.stdout) == (0, b"")
    assert f"there is no settings file {own}: defaults are used" in without.stderr
    assert run_here("config", "init").code == 0
    assert own.read_text() == commented_settings()
    assert "it has 0 settings" in run_here("config", "check").stderr
    own.write_text("[cache]\nmax_seq_len = 99\n")
    refused = run_here("config", "init")
    assert refused.code == USAGE
    assert "--overwrite" in refused.stderr
    assert "it has 1 setting\n" in run_here("config", "check").stderr
    assert run_here("config", "init", "--overwrite").code == 0
    assert own.read_text() == commented_settings()
    assert os.listdir(own.parent) == ["config.toml"]  # noqa: PTH208
    assert run_here("config", "init", tmp_path / "new" / "job.toml").code == 0
    assert (tmp_path / "new" / "job.toml").exists()


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[cache]\nmax_sq_len = 1", "no setting max_sq_len"),
        ("[cache", "not valid TOML"),
        (None, "no settings file"),
    ],
)
def test_an_invalid_file_is_reported(run_here, tmp_path, toml, said):
    file = tmp_path / "job.toml"
    if toml is not None:
        file.write_text(toml)
    outcome = run_here("config", "check", file)
    assert (outcome.code, outcome.stdout) == (CONFIGURATION, b"")
    assert said in outcome.stderr
    assert str(file) in outcome.stderr


def test_without_a_home_a_file_must_be_named(run_here, tmp_path, monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    for command in ("path", "init", "check"):
        assert run_here("config", command).code == CONFIGURATION
    assert run_here("config", "init", tmp_path / "job.toml").code == 0
    monkeypatch.setenv("HOME", "/proc")
    assert run_here("config", "init").code == CONFIGURATION
