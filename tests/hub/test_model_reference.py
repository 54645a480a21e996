import os
from pathlib import Path

import pytest

from metal_gen.errors import ModelNotFoundError, UsageError
from metal_gen.hub.reference import HubModel, LocalModel, parse_model_reference


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("model", "repo_id", "revision"),
    [
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "main"),
        ("mlx-community/Qwen3-0.6B-4bit@main", "mlx-community/Qwen3-0.6B-4bit", "main"),
        ("a/b@0123456789abcdef0123456789abcdef01234567", "a/b", "0123456789abcdef0123456789abcdef01234567"),
        ("a/b@refs/pr/5", "a/b", "refs/pr/5"),
        ("a/b@v1.0", "a/b", "v1.0"),
        ("_a/b_c.d", "_a/b_c.d", "main"),
    ],
)
def test_a_hub_id_with_and_without_a_revision(model, repo_id, revision):
    assert parse_model_reference(model) == HubModel(repo_id, revision)


def test_a_hub_model_prints_as_it_is_typed():
    assert str(HubModel("a/b")) == "a/b"
    assert str(HubModel("a/b", "v2")) == "a/b@v2"


@pytest.mark.parametrize("folder", ["plain", "org/name", "a/b/c", "org/name@v1", "with space"])
def test_an_existing_folder_wins_over_an_id(folder):
    Path(folder).mkdir(parents=True)
    assert parse_model_reference(folder) == LocalModel(Path(folder))
    assert parse_model_reference(f"./{folder}/") == LocalModel(Path(folder))


def test_the_home_folder_is_expanded(empty_folder):
    (empty_folder / "models").mkdir()
    assert parse_model_reference("~/models") == LocalModel(empty_folder / "models")


@pytest.mark.parametrize(
    "model",
    [
        "/no/such", "./org/name", "../name", ".hidden/x", "~/models", "~nobody-here/x", "C:/models",
        "d:models/x", "org\\name", "org/name/", "a/b/c", "name", "a//b", "x" * 300, "x/" * 3000,
    ],
)  # fmt: skip
def test_what_looks_like_a_path_is_never_an_id(model):
    with pytest.raises(ModelNotFoundError) as caught:
        parse_model_reference(model)
    assert model[:500] in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("model", "in_hint"),
    [
        ("Qwen3-0.6B", "org/name"),
        ("Qwen3-0.6B@main", "org/name"),
        ("./Qwen/Qwen3-0.6B", "the Hub's repository: Qwen/Qwen3-0.6B"),
        ("Qwen/Qwen3-0.6B/", "the Hub's repository: Qwen/Qwen3-0.6B"),
        ("https://huggingface.co/Qwen/Qwen3-0.6B/tree/main", "give the Hub id: Qwen/Qwen3-0.6B"),
        ("huggingface.co/Qwen/Qwen3-0.6B", "give the Hub id: Qwen/Qwen3-0.6B"),
        ("hf://Qwen/Qwen3-0.6B", "give the Hub id: Qwen/Qwen3-0.6B"),
    ],
)
def test_a_path_that_was_meant_as_an_id_says_how(model, in_hint):
    with pytest.raises(ModelNotFoundError) as caught:
        parse_model_reference(model)
    assert in_hint in caught.value.hint


def test_a_file_is_not_a_folder(empty_folder):
    (empty_folder / "models").mkdir()
    (empty_folder / "models" / "qwen.bin").touch()
    with pytest.raises(ModelNotFoundError, match=r"a file, not a folder: models/qwen\.bin"):
        parse_model_reference("models/qwen.bin")


def test_of_files_gguf_ones_are_models(empty_folder):
    (empty_folder / "qwen.gguf").touch()
    assert parse_model_reference("qwen.gguf") == LocalModel(Path("qwen.gguf"))
    with pytest.raises(ModelNotFoundError, match=r"no such file: models/qwen\.gguf"):
        parse_model_reference("models/qwen.gguf")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_id(empty_folder):
    locked = empty_folder / "locked"
    locked.mkdir(mode=0)
    with pytest.raises(ModelNotFoundError, match="folder is not readable: locked/model"):
        parse_model_reference("locked/model")


@pytest.mark.parametrize(
    "model",
    [
        "", "  ", "org/na me", "org/-name", "org/name-", "org./name", "org/na--me", "org/na..me",
        "org/name.git", "org/naïve", "a/" + "b" * 97, "org/name@", "org/name@..", "org/name@../../x",
        "org/name@/x", "org/name@a b", "org/name@a:b", "org/name@a@b", "org/na\0me",
        "org/name@" + "r" * 251, "org/name@" + "é" * 126, "org/name@\ud800", "org/\ud800",
    ],
)  # fmt: skip
def test_what_the_hub_would_not_accept_is_a_mistake_in_usage(model):
    with pytest.raises(UsageError) as caught:
        parse_model_reference(model)
    assert caught.value.hint


def test_a_folder_without_permission_to_list_it_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ModelNotFoundError, match="folder is not readable"):
        parse_model_reference(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("qwen3:0.6b", "Qwen/Qwen3-0.6B"),
        ("Qwen3:30b-a3b-q4_K_M", "Qwen/Qwen3-30B-A3B"),
        ("qwen3.5:27b", "Qwen/Qwen3.5-27B"),
        ("qwen3:latest", "Qwen/Qwen3-0.6B"),
    ],
)
def test_a_name_of_ollama_gets_the_hub_id_as_the_example(name, id):
    with pytest.raises(ModelNotFoundError) as caught:
        parse_model_reference(name)
    assert caught.value.hint.endswith(f", such as {id}")
