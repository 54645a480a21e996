"""Tests that the documented installation works today, and that its first commands can be pasted."""

import re
import tomllib

from cli_process import ROOT

from metal_gen.batch.cluster.ray_nodes import PACKAGE

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_first_block_activates_the_environment_before_it_names_the_program():
    first = re.search(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1]
    words = first.split()
    places = [words.index(word) for word in ("clone", "cd", ".venv/bin/activate", "pip", "metal-gen")]
    assert places == sorted(places)
    assert "--model" not in words


def test_what_is_pasted_first_has_no_comments():
    """On a Mac, an interactive zsh treats comments as arguments."""
    first_screen = README.partition("\n## ")[0]
    for block in re.findall(r"^```sh\n(.*?)^```", first_screen, re.MULTILINE | re.DOTALL):
        assert "#" not in block


def test_nothing_is_to_be_installed_from_an_index_where_it_is_not():
    files = [*(ROOT / "metal_gen").rglob("*.py"), *(ROOT / "scripts").rglob("*.py"), ROOT / "README.md"]
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pip install [^\n]*metal-gen", text), path


def test_a_hint_names_the_versions_that_an_extra_asks_for():
    assert PROJECT["optional-dependencies"]["cluster"] == [PACKAGE]


def test_the_extras_that_the_readme_names_exist():
    named = re.findall(r"'\.\[([\w,]+)\]'", README)
    assert named
    assert set(",".join(named).split(",")) <= set(PROJECT["optional-dependencies"])
