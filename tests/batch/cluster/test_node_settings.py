"""Nodes of a cluster run in other folders: the paths of a batch are absolute there."""

from pathlib import Path

from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.batch.cluster.node_settings import settings_of_nodes
from metal_gen.batch.output.fingerprint import fingerprint
from metal_gen.config.settings import Settings
from metal_gen.generation.loading import prepare
from metal_gen.generation.prefixes.prompt_prefix import read_prefix


def test_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text_checkpoint(Path("model"))
    given = {"model": "model", "prefix_file": "rules.txt", "prefix_cache_dir": "p", "max_tokens": 3}
    settings = Settings().override(given, "a file")
    there = settings_of_nodes(prepare(settings, most_slots=2))
    assert there.model == str(tmp_path / "model")
    assert there.prefix_file == str(tmp_path / "rules.txt")
    assert there.prefix_cache_dir == str(tmp_path / "p")
    assert {there.source(name) for name in given} == {"a file"}
    assert there.max_tokens == 3


def test_paths_in_the_home_folder_and_what_is_not_set_stay(tmp_path):
    settings = Settings(prefix_cache_dir="~/prefixes")
    there = settings_of_nodes(prepare(settings, most_slots=2))
    assert there.prefix_cache_dir == "~/prefixes"
    assert (there.model, there.prefix_file, there.draft_model) == (None, None, None)


def test_a_prefix_file_whose_name_begins_with_a_tilde_is_no_path_in_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("~rules.txt").write_text("Be brief.")
    assert read_prefix("~rules.txt").text == "Be brief."
    there = settings_of_nodes(prepare(Settings(prefix_file="~rules.txt"), most_slots=2))
    assert there.prefix_file == str(tmp_path / "~rules.txt")


def test_a_prefix_file_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    rules = tmp_path / "rules.txt"
    rules.write_text("Be brief.")
    settings = Settings(prefix_file="~/rules.txt")
    assert read_prefix("~/rules.txt").text == "Be brief."
    prepared, by_path = (prepare(each, most_slots=2) for each in (settings, Settings(prefix_file=str(rules))))
    assert fingerprint(prepared, None)["prefix_file"] == fingerprint(by_path, None)["prefix_file"]
    assert settings_of_nodes(prepared).prefix_file == str(rules)


def test_a_draft_model_is_found_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text_checkpoint(Path("model"))
    write_text_checkpoint(Path("draft"))
    settings = Settings(model="model", draft_model="draft", speculate="draft", batch_size=1)
    there = settings_of_nodes(prepare(settings, most_slots=1))
    assert (there.draft_model, there.speculate) == (str(tmp_path / "draft"), "draft")
