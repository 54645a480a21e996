"""Tests `metal-gen generate` in a real terminal: typed, watched, resized, interrupted, resumed."""

import pytest
from cli_process import clean_environment
from tiny_text_checkpoint import CYCLE, SHOWN, write_text_checkpoint
from tmux_session import Shell
from tmux_terminal import needs_tmux

pytest_plugins = ("fixtures_text",)
pytestmark = [pytest.mark.tmux, needs_tmux]

LINE = CYCLE.decode().strip()


@pytest.fixture
def shell(tmp_path):
    with Shell(tmp_path, clean_environment(tmp_path, TMUX=None), columns=80, rows=8) as shell:
        yield shell


def test_a_text_grows_through_a_resize_until_it_is_interrupted_and_the_shell_continues(
    babbler, speaker, shell
):
    shell.run(f"metal-gen generate -m {babbler} -p hi --max-seq-len 20000 -q")
    shell.wait_until(lambda screen: shell.lines_scrolled_off > 5)
    assert shell.screen[-3] == LINE
    shell.resize(30, 6)
    before = shell.lines_scrolled_off
    shell.wait_until(lambda screen: shell.lines_scrolled_off > before + 8)
    assert set(shell.screen[:-1]) == {LINE}

    shell.type("", "C-c")
    shell.wait_until(shell.is_ready)
    # The place of the echoed ^C depends on timing.
    *text, said, _ = "\n".join(shell.screen).replace("^C", "").splitlines()
    assert said == "metal-gen: interrupted"
    assert all(line == LINE for line in text[:-1])
    assert LINE.startswith(text[-1])

    shell.run("echo $?")
    shell.wait_until(shell.is_ready)
    assert shell.screen[-2] == "130"
    shell.run("clear")
    shell.run(f"metal-gen generate -m {speaker} -p hi -q")
    shell.wait_until(shell.is_ready)
    assert "\n".join(shell.screen[1:-1]) == SHOWN


def test_markdown_leaves_each_line_once_in_the_scrollback(text_checkpoints, shell):
    model = write_text_checkpoint(text_checkpoints / "lister", says=b"- ab\n", forever=True)
    shell.run(f"metal-gen generate -m {model} -p hi --max-seq-len 600 -n 200 -q --markdown")
    shell.wait_until(lambda screen: shell.lines_scrolled_off > 5)
    shell.resize(30, 6)
    shell.wait_until(shell.is_ready)
    assert [line.rstrip() for line in shell.scrollback[-41:-1]] == [" • ab"] * 40
    assert shell.scrollback.count(" • ab") == 40
