"""The man pages, which are made of the manual."""

import re
import runpy
import shutil
import subprocess

import pytest
from cli_process import ROOT

man_pages = runpy.run_path(str(ROOT / "scripts" / "man_pages.py"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return man_pages["write_pages"](tmp_path_factory.mktemp("man"))


def test_there_is_a_page_for_the_program_and_one_for_every_topic(pages):
    topics = {f"metal-gen-{path.stem}.7" for path in (ROOT / "metal_gen" / "manual").glob("*/*.md")}
    assert {page.name for page in pages} == {"metal-gen.1", *topics}
    program = pages[0].read_text()
    assert all(name.removesuffix(".7").replace("-", "\\-") in program for name in topics)


def test_a_page_has_a_name_and_what_it_is_about(pages):
    for page in pages:
        lines = page.read_text(encoding="ascii").splitlines()
        assert lines[0].startswith(f'.TH "{page.stem.upper()}" {page.suffix[1:]} ')
        assert lines[1] == ".SH NAME"
        assert lines[2].startswith(page.stem.replace("-", "\\-") + " \\- ")


def test_a_line_of_text_is_never_taken_for_a_request():
    page = man_pages["topic_page"](
        "x", "# X\n\n.so /etc/passwd\n\n    .so this\n    'so that\n\n- `.so` a\\b\n"
    )
    assert [line for line in page.splitlines() if line.startswith((".so", "'so"))] == []
    assert "\\&.so /etc/passwd" in page
    assert "a\\eb" in page


def test_every_row_of_a_table_is_there():
    page = man_pages["topic_page"]("x", "# X\n\n| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |\n| 4 | 5 | |\n")
    assert ".TP\n1\n2; c: 3\n.TP\n4\n5" in page


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
def test_groff_has_nothing_to_warn_of(pages):
    result = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", *pages], capture_output=True, text=True, check=True
    )
    assert result.stderr == ""
    # Bold is a letter printed twice.
    assert "EXIT CODES" in re.sub(".\b", "", result.stdout)
