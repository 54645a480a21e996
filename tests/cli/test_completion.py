"""Tests shell completion, and of how little it loads."""

import json
import subprocess
import sys

import pytest
from cli_process import clean_environment
from model_cache import A, B, model_files, put_model

COMPLETE = """
import json, os, sys
from metal_gen.cli.main import main
for words in json.loads(sys.argv[1]):
    os.environ.update(COMP_WORDS="\\n".join(["metal-gen", *words]), COMP_CWORD=str(len(words)))
    try:
        main([])
    except SystemExit:
        print("=")
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def complete(tmp_path):
    """Complete the last word of each line as bash asks for it.

    Returns the completions of each line, and the modules that were loaded.
    """

    def run(*lines):
        done = subprocess.run(
            [sys.executable, "-c", COMPLETE, json.dumps([line.split(" ") for line in lines])],
            env=clean_environment(tmp_path, _METAL_GEN_COMPLETE="complete_bash"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        return [part.split() for part in done.stdout.split("=\n")[:-1]], json.loads(done.stderr)

    return run


def test_models_are_completed_from_the_cache(complete, tmp_path):
    hub = tmp_path / "hf" / "hub"
    put_model(hub, "org/name", model_files())
    put_model(hub, "org/name", model_files(), commit=B, names=("v1",))
    put_model(hub, "org/part", {"config.json": b"{}"}, commit=A)
    put_model(hub, "other/name", model_files())
    found, loaded = complete(
        "generate --model org/", "models rm ot", "generate --model ./", "chat --draft-model ot"
    )
    assert sorted(found[0]) == ["org/name", "org/name@v1", "org/part"]
    assert found[1] == ["other/name"]
    assert found[2] == [], "a folder is left to the shell"
    assert found[3] == ["other/name"]
    heavy = {"mlx", "mlx_lm", "transformers", "tokenizers", "jinja2", "numpy", "rich"}
    assert heavy & {name.split(".")[0] for name in loaded} == set()
    of_hub = {name for name in loaded if name.startswith("huggingface_hub")}
    assert of_hub <= {"huggingface_hub", "huggingface_hub.constants"}


def test_bash_splits_an_option_at_its_equals_sign(complete):
    split = [
        "generate --cache-dtype = fl",
        "generate --cache-dtype =",
        "generate --top-p = 0.9 --cache-dtype b",
    ]
    found, _ = complete(*split)
    assert found[0] == ["float32", "float16"]
    assert set(found[1]) > set(found[0])
    assert found[2] == ["bfloat16"]


def test_words_of_settings_and_commands_are_completed(complete):
    found, _ = complete("generate --cache-dtype fl", "models ")
    assert found == [["float32", "float16"], ["list", "pull", "show", "path", "rm"]]


def test_words_of_other_options_are_completed(complete):
    found, _ = complete(
        "rank --by ",
        "rank --method re",
        "generate --quantize mx",
        "convert --dtype bf",
        "bench --format cs",
        "bench --only decode,me",
    )
    assert found == [
        ["sum", "mean"],
        ["reranker"],
        ["mxfp4", "mxfp8"],
        ["bfloat16"],
        ["csv"],
        ["decode,memory"],
    ]


@pytest.mark.parametrize("command", ["rank", "generate"])
def test_fish_gets_one_completion_a_line(tmp_path, command):
    """Also on a narrow terminal, where help would be wrapped."""
    done = subprocess.run(
        [sys.executable, "-m", "metal_gen"],
        env=clean_environment(
            tmp_path,
            _METAL_GEN_COMPLETE="complete_fish",
            _TYPER_COMPLETE_ARGS=f"metal-gen {command} --",
            _TYPER_COMPLETE_FISH_ACTION="get-args",
            COLUMNS="40",
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) > 5
    assert [line for line in lines if not line.startswith("--") or "\t" not in line] == []
