"""Tests `--json` of commands that report on models, memory, settings and the machine against its schema."""

import json

import jsonschema
import pytest
from cli_process import ROOT
from model_cache import model_files, put_model
from tiny_text_checkpoint import write_text_checkpoint

pytest_plugins = ("fixtures_cli",)

SCHEMA = json.loads((ROOT / "metal_gen" / "schemas" / "reports.json").read_text())
SYSTEM = " ".join(map(str, range(100)))


@pytest.fixture
def report(run_here):
    """Return the document of a command, after it was checked against its definition."""

    def report(kind, *arguments, code=0):
        outcome = run_here(*arguments, "--json")
        assert outcome.code == code, outcome.stderr
        document = json.loads(outcome.stdout)
        own = {**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{kind}"}]}
        jsonschema.Draft202012Validator(own).validate(document)
        return document

    return report


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for name in SCHEMA["$defs"]:
        assert f'"#/$defs/{name}"' in json.dumps(SCHEMA), f"{name} is used nowhere"


def test_models_and_their_plans(report, tmp_path):
    folder = str(write_text_checkpoint(tmp_path / "model"))
    assert report("model", "models", "show", folder)["problem"] is None
    assert report("plan", "plan", folder, "--quantize", "8")["quantize"] == "8"
    put_model(tmp_path / "hf" / "hub", "org/name", model_files())
    [listed] = report("models", "models", "list")
    assert listed["model"] == "org/name"


def test_a_model_that_cannot_be_loaded(report, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert report("model", "models", "show", str(tmp_path), code=5)["problem"]


def test_stored_prefixes(report, run_here, monkeypatch):
    monkeypatch.setenv("METAL_GEN_PREFIX_CACHE_MIN_TOKENS", "64")
    run_here("generate", "--prefix-cache", "--system", SYSTEM, "Hello.", "-n", "2")
    [entry] = report("prefixes", "cache", "list")
    assert report("prefix", "cache", "show", entry["name"]) == entry


def test_settings_and_the_machine(report):
    assert report("settings", "config", "show")["model"]["source"] == "default"
    assert "versions" in report("info", "info")
