"""Tests the script that draws terminals."""

import sys

from cli_process import ROOT


def test_a_screen_is_drawn_with_its_styles_and_without_the_prompt_that_waits(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    from picture_of_terminal import draw

    svg = draw("$ run\n\x1b[1mbold\nstill <b>\x1b[0m\n$\n", 20)
    assert "bold" in svg
    assert "&lt;b&gt;" in svg
    assert svg.count("font-weight: bold") >= 1
    assert svg.count(">$") == 1
