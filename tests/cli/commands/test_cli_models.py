"""Tests `metal-gen models` from a shell."""

import io
import json
import re
import subprocess
from pathlib import Path

import pytest
from cli_process import command, run_in_terminal
from hub_process import MODEL, clutter, hub_environment, single_file_repo
from hub_server import running_hub
from huggingface_hub import constants
from model_cache import ESC, A, B, folder_files, model_files, put_model
from story_model import write_story_model

from metal_gen.byte_sizes import format_bytes

pytest_plugins = ("fixtures_cli", "fixtures_text")

USAGE, CONFIGURATION, NOT_FOUND, BAD_CHECKPOINT = 2, 3, 4, 5


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "hf" / "hub"
    folder.mkdir(parents=True)
    return folder


def test_the_list_is_a_line_for_each_model(run_here, hub):
    put_model(hub, "org/name", model_files())
    put_model(hub, "Org/broken", {**model_files(), "config.json": b"{"}, names=("v1",))
    put_model(hub, f"a/{ESC}", model_files(model_type=ESC))
    outcome = run_here("models", "list")
    assert (outcome.code, outcome.stderr) == (0, "")
    heading, *lines = outcome.stdout.decode().splitlines()
    assert heading.split() == ["model", "size", "architecture", "weights", "last", "use", "state"]
    assert [line.split()[0] for line in lines] == ["a/\u241b[31m", "Org/broken@v1", "org/name"]
    assert lines[1].split()[-1] == "unreadable"
    assert lines[2].split()[1:5] == ["3.0", "KiB", "qwen3", "bfloat16"]
    assert "\u241b[31m" in lines[0].split()[3]


def test_the_list_as_json_has_names_as_they_are(run_here, hub):
    snapshot = put_model(hub, f"a/{ESC}", model_files())
    (model,) = json.loads(run_here("models", "list", "--json").stdout)
    assert model["model"] == f"a/{ESC}"
    assert model["path"] == str(snapshot)
    assert model["size_bytes"] == sum(path.stat().st_size for path in snapshot.iterdir())
    assert model["state"] == "ready"


def test_an_empty_cache_says_how_to_fill_it(run_here):
    outcome = run_here("models", "list")
    assert (outcome.code, outcome.stdout) == (0, b"")
    assert "metal-gen models pull" in outcome.stderr
    assert run_here("models", "list", "--json").stdout == b"[]\n"


def test_the_list_fits_a_narrow_terminal(hub, tmp_path):
    put_model(hub, "organization/a-model-with-a-long-name-Instruct-2507", model_files())
    outcome = run_in_terminal("models", "list", home=tmp_path, attached=("stdout",), columns=40)
    shown = re.sub("\x1b\\[[0-9;]*m", "", outcome.screen.decode())
    lines = [line.rstrip() for line in shown.splitlines()]
    assert outcome.code == 0
    assert max(map(len, lines)) <= 40
    assert "".join(lines[:2]) == "organization/a-model-with-a-long-name-Instruct-2507"
    assert "  architecture  qwen3" in lines


def test_show_tells_all_that_is_known(run_here, hub, speaker):
    put_model(hub, "org/name", folder_files(speaker))
    outcome = run_here("models", "show", "org/name")
    assert (outcome.code, outcome.stderr) == (0, "")
    words = [line.split() for line in outcome.stdout.decode().splitlines()]
    assert ["model", "org/name"] in words
    assert ["vocab", "size", "272"] in words
    assert ["state", "ready"] in words
    details = json.loads(run_here("models", "show", "org/name", "--json").stdout)
    assert details["problem"] is None
    assert details["files"]["config.json"] == (Path(speaker) / "config.json").stat().st_size
    assert details["parameters"] > 0
    assert details["mtp"] is False
    assert run_here("models", "show", speaker).code == 0


def test_show_tells_whether_there_are_layers_for_multi_token_prediction(run_here, tmp_path):
    details = json.loads(run_here("models", "show", write_story_model(tmp_path), "--json").stdout)
    assert details["mtp"] is True


def test_a_folder_goes_before_a_model_of_the_cache_and_main_before_other_commits(run_here, hub, tmp_path):
    put_model(hub, "org/name", model_files(), commit=A, names=("a",))
    put_model(hub, "org/name", model_files(), commit=B)
    assert json.loads(run_here("models", "show", "org/name", "--json").stdout)["commit"] == B
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert json.loads(run_here("models", "show", "org/name", "--json").stdout)["path"] == "org/name"


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        (model_files(), BAD_CHECKPOINT, "num_attention_heads is missing"),
        (model_files(model_type="llama"), BAD_CHECKPOINT, "model_type is 'llama'"),
        ({"config.json": b"{}"}, NOT_FOUND, "lacks tokenizer.json, model*.safetensors"),
    ],
    ids=["damaged", "not supported", "incomplete"],
)
def test_show_says_why_a_model_cannot_be_loaded_after_what_is_known(run_here, hub, files, code, said):
    put_model(hub, "org/name", files)
    outcome = run_here("models", "show", "org/name", "--json")
    details = json.loads(outcome.stdout)
    assert outcome.code == code
    assert said in details["problem"]
    assert said in outcome.stderr
    assert details["path"]


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("x" * 300, NOT_FOUND),
        ("org/" + "x" * 300, USAGE),
        ("~nobody-here/x", NOT_FOUND),
        ("./" + "x/" * 3000, NOT_FOUND),
    ],
    ids=["long", "long id", "nobody", "deep"],
)
def test_show_of_a_name_that_no_file_can_have(run_here, model, code):
    outcome = run_here("models", "show", model)
    assert outcome.code == code
    assert outcome.stderr.startswith("metal-gen: ")


@pytest.mark.parametrize("arguments", [("models", "list"), ("generate", "--model", "org/name", "-p", "hi")])
def test_a_cache_that_no_folder_can_be(run_here, arguments, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/" + "x" * 5000)
    outcome = run_here(*arguments)
    assert outcome.code == CONFIGURATION
    assert "the cache cannot be read" in outcome.stderr


@pytest.mark.parametrize("arguments", [("models", "list"), ("info",)])
def test_a_variable_of_the_library_that_makes_no_sense(run_here, arguments, monkeypatch):
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "x")
    outcome = run_here(*arguments)
    assert outcome.code == CONFIGURATION
    assert "HF_HUB_ETAG_TIMEOUT must be a number of seconds: x" in outcome.stderr


def test_path_is_the_folder_and_nothing_else(run_here, hub, tmp_path):
    snapshot = put_model(hub, "org/name", model_files())
    put_model(hub, "org/part", {"config.json": b"{}"})
    assert run_here("models", "path").stdout == f"{hub}\n".encode()
    assert run_here("models", "path", "org/name").stdout == f"{snapshot}\n".encode()
    assert run_here("models", "path", str(tmp_path)).stdout == f"{tmp_path}\n".encode()
    for missing in ("org/part", "org/nam", "./nowhere"):
        outcome = run_here("models", "path", missing)
        assert (outcome.code, outcome.stdout) == (NOT_FOUND, b"")
    assert "metal-gen models pull org/part" in run_here("models", "path", "org/part").stderr
    assert "in the cache: org/name" in run_here("models", "path", "org/nam").stderr


def test_rm_does_not_ask_in_a_pipe(run_here, hub):
    put_model(hub, "org/name", model_files())
    refused = run_here("models", "rm", "org/name")
    assert (refused.code, refused.stdout) == (USAGE, b"")
    assert "--yes" in refused.stderr
    assert run_here("models", "path", "org/name").code == 0
    done = run_here("models", "rm", "org/name", "--yes")
    assert (done.code, done.stdout, done.stderr) == (0, b"", "metal-gen: deleted org/name\n")
    assert list(hub.iterdir()) == []


def test_rm_deletes_all_or_nothing_of_what_it_is_asked(run_here, hub, tmp_path):
    put_model(hub, "org/name", model_files(), commit=A, names=("v1",))
    put_model(hub, "org/name", model_files(), commit=B)
    for other, code in (("org/other", NOT_FOUND), (str(tmp_path), USAGE), ("./nowhere", NOT_FOUND)):
        assert run_here("models", "rm", "org/name", other, "--yes").code == code
    assert run_here("models", "rm", "org/name@v1", "-y", "-q").stderr == ""
    assert len(json.loads(run_here("models", "list", "--json").stdout)) == 1
    put_model(hub, "org/more", model_files())
    done = run_here("models", "rm", "org/name", f"org/name@{B}", "org/more", "-y")
    assert (done.code, done.stderr) == (0, "metal-gen: deleted org/name\nmetal-gen: deleted org/more\n")


@pytest.mark.parametrize(("answer", "is_deleted"), [("y", True), ("", False), ("n", False)])
def test_rm_asks_at_a_terminal(run_here, hub, monkeypatch, answer, is_deleted):
    put_model(hub, "org/name", model_files())
    monkeypatch.setattr("sys.stdin", _Person(f"{answer}\n"))
    monkeypatch.setattr("metal_gen.cli.terminal.console.Console.stderr_is_terminal", True)
    outcome = run_here("models", "rm", "org/name")
    assert "delete org/name: 3.0 KiB? [y/N]" in outcome.stderr
    assert outcome.code == 0
    assert any(hub.iterdir()) is not is_deleted


class _Person(io.StringIO):
    """A user at standard input."""

    def isatty(self):
        return True


def test_pull_fetches_what_is_missing_or_has_another_size(tmp_path):
    def pull(*more):
        return subprocess.run(
            command("models", "pull", MODEL, *more),
            env=hub_environment(hub, tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )

    with running_hub() as hub:
        repo = hub.repos[MODEL] = single_file_repo()
        first = pull()
        folder = Path(first.stdout.removesuffix("\n"))
        assert (first.returncode, folder.name) == (0, repo.commit)
        needed = set(repo.files) - set(clutter())
        assert {path.name for path in folder.iterdir()} == set(hub.fetched()) == needed
        total = sum(len(repo.files[name]) for name in needed)
        begun, ended = first.stderr.splitlines()
        assert begun == f"metal-gen: downloading {MODEL}: {total:,} of {total:,} bytes"
        assert ended.startswith(f"metal-gen: downloaded {MODEL}: {format_bytes(total)} in ")

        weights = folder / "model.safetensors"
        weights.resolve().write_bytes(b"cut short")
        hub.log.clear()
        second = pull("-q")
        assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
        assert hub.fetched() == ["model.safetensors"]
        assert weights.read_bytes() == repo.files["model.safetensors"]


def test_pull_without_the_network_knows_what_is_there(run_here, hub, tmp_path):
    snapshot = put_model(hub, "org/name", model_files())
    done = run_here("models", "pull", "org/name")
    assert (done.code, done.stdout) == (0, f"{snapshot}\n".encode())
    assert run_here("models", "pull", "org/other").code == NOT_FOUND
    assert run_here("models", "pull", str(tmp_path)).code == USAGE


def test_a_group_without_a_command_is_a_mistake(run_here):
    outcome = run_here("models")
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert "metal-gen models --help" in outcome.stderr
