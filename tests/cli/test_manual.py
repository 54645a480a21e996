"""Tests README and manual: commands run, links lead somewhere, pages are short."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import ROOT, clean_environment
from model_cache import folder_files, put_model
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.cli.help_topics import FOLDER

sys.path.insert(0, str(ROOT / "scripts"))

from make_manual import PAGES

PAGE_FILES = [ROOT / "README.md", *sorted(FOLDER.rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Commands that install, or that run all tests, including these.
NOT_RUN = ("pip install", "scripts/check")
TALK = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}'


def blocks(path, kind):
    return [block for found, block in BLOCK.findall(path.read_text(encoding="utf-8")) if found == kind]


def script_of(path):
    return "".join(block for block in blocks(path, "sh") if not any(words in block for words in NOT_RUN))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with the manual's model in its cache, and the files that the commands read."""
    home = tmp_path_factory.mktemp("home")
    folder = write_text_checkpoint(home / "made", hidden_size=64, intermediate_size=128, head_dim=32)
    put_model(home / "hf" / "hub", "Qwen/Qwen3-0.6B", folder_files(folder))
    (home / "bin").mkdir()
    program = home / "bin" / "metal-gen"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m metal_gen "$@"\n')
    program.chmod(0o755)
    return home


def with_mark(path):
    """Leave most guides for a release; `test_help.py` reads the commands of all pages."""
    is_for_release = path.parent.name == "guides" and path.stem not in ("batch", "chat")
    marks = pytest.mark.release if is_for_release else ()
    return pytest.param(path, id=str(path.relative_to(ROOT)), marks=marks)


@pytest.mark.parametrize("path", [with_mark(path) for path in PAGE_FILES if script_of(path)])
def test_the_commands_of_a_page_run(path, home, tmp_path):
    (tmp_path / "notes.txt").write_text("Milk, bread and a lantern.\n")
    (tmp_path / "talk.json").write_text(TALK)
    environment = clean_environment(home, PATH=f"{home / 'bin'}:/usr/bin:/bin", METAL_GEN_MAX_TOKENS="30")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script_of(path)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", PAGE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path):
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [path for path in PAGE_FILES[1:] if f"]({path.relative_to(ROOT)})" not in readme]
    assert missing == []


def test_pages_are_short():
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert len(words) <= 1500
    for path in PAGE_FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= (
            250 if path.name == "README.md" else 150
        )


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.release if "which" in name else ()) for name in PAGES],
)
def test_a_page_that_comes_from_the_code_is_up_to_date(name):
    written = (Path(FOLDER) / name).read_text(encoding="utf-8")
    assert PAGES[name]() == written, "run: python scripts/make_manual.py"
