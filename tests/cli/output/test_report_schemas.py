"""Tests the JSON of commands that report on models, memory, settings and the machine against its schema."""

import json

import jsonschema
import pytest
from cli_process import ROOT
from model_cache import model_files, put_model
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.bench.measurement import METAL_GEN, MLX_LM, PARAMETERS, Measurement, Unit
from metal_gen.bench.report import BenchReport

pytest_plugins = ("fixtures_cli",)

SCHEMA = json.loads((ROOT / "metal_gen" / "schemas" / "reports.json").read_text())
SYSTEM = " ".join(map(str, range(100)))


@pytest.fixture
def report(run_here):
    """Return the document of a command, after it was checked against its definition."""

    def report(kind, *arguments, code=0, form=("--json",)):
        outcome = run_here(*arguments, *form)
        assert outcome.code == code, outcome.stderr
        return check(kind, json.loads(outcome.stdout))

    return report


def check(kind, document):
    """Fail where a document is not as its definition says."""
    own = {**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{kind}"}]}
    jsonschema.Draft202012Validator(own).validate(document)
    return document


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


def test_a_benchmark(report, tmp_path):
    folder = str(write_text_checkpoint(tmp_path / "model"))
    sizes = (
        "--max-seq-len",
        "32",
        "--repeats",
        "1",
        "--warmup",
        "0",
        "--decode-tokens",
        "2",
        "--depths",
        "0,8",
    )
    measured = ("--only", "load,memory,prefill,decode,capacity,uncached,parts,step,graph")
    form = ("--format", "json")
    document = report("bench", "bench", "--model", folder, *sizes, *measured, form=form)
    assert len({figure["section"] for figure in document["measurements"]}) == 10
    # A name or a unit that is not described would not be noticed otherwise.
    assert {str(unit) for unit in Unit} == set(SCHEMA["$defs"]["measurement"]["properties"]["unit"]["enum"])
    assert set(PARAMETERS) == set(SCHEMA["$defs"]["measurement"]["properties"]["parameters"]["properties"])


def test_a_benchmark_that_compares_and_was_stopped(report, tmp_path):
    folder = str(write_text_checkpoint(tmp_path / "model"))
    arguments = ("--model", folder, "--repeats", "1", "--only", "memory", "--max-seq-len", "32")
    document = report("bench", "bench", *arguments, form=("--format", "json"))
    figures = [
        Measurement(
            "decode", "decode_tps", Unit.TOKENS_PER_SECOND, program, {"depth": 8}, 200.0, [50.0, 60.0]
        )
        for program in (METAL_GEN, MLX_LM)
    ]
    setup = {**document["setup"], "compare": MLX_LM}
    [ours, theirs] = check(
        "bench", BenchReport(document["environment"], setup, figures, ["a note"]).to_dict()
    )["measurements"]
    assert (ours["ratio"]["median"], theirs["ratio"]) == (1.0, None)
