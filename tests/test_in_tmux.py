"""`metal-gen generate` in a real terminal: typed, watched, resized, interrupted, gone on with."""

import pytest
from cli_process import clean_environment
from tiny_text_checkpoint import CYCLE, SHOWN, write_text_checkpoint
from tmux_session import HAS_TMUX, PROMPT, TmuxSession

pytest_plugins = ("fixtures_text",)
pytestmark = [pytest.mark.tmux, pytest.mark.skipif(not HAS_TMUX, reason="needs tmux")]

LINE = CYCLE.decode().strip()


def test_a_text_grows_through_a_resize_until_it_is_interrupted_and_the_shell_goes_on(
    babbler, speaker, tmp_path
):
    with TmuxSession(tmp_path, clean_environment(tmp_path)) as session:
        session.run(f"metal-gen generate -m {babbler} -p hi --max-seq-len 20000 -q")
        session.wait_for(lambda: session.lines_scrolled_off() > 5)
        assert session.screen().splitlines()[-3] == LINE
        session.resize(30, 6)
        before = session.lines_scrolled_off()
        session.wait_for(lambda: session.lines_scrolled_off() > before + 8)
        assert set(session.screen().splitlines()[:-1]) == {LINE}

        session.press("C-c")
        session.wait_for_prompt()
        # Where the terminal echoes ^C depends on the moment.
        *text, said, _ = session.screen().replace("^C", "").splitlines()
        assert said == "metal-gen: interrupted"
        assert all(line == LINE for line in text[:-1])
        assert LINE.startswith(text[-1])

        session.run("echo $?; clear")
        session.wait_for(lambda: session.screen() == f"{PROMPT.strip()}\n")
        session.run(f"metal-gen generate -m {speaker} -p hi -q")
        session.wait_for_prompt()
        assert session.screen().endswith(f"{SHOWN}\n{PROMPT.strip()}\n")


def test_markdown_leaves_each_line_once_in_the_scrollback(text_checkpoints, tmp_path):
    model = write_text_checkpoint(text_checkpoints / "lister", says=b"- ab\n", forever=True)
    with TmuxSession(tmp_path, clean_environment(tmp_path), columns=40) as session:
        session.run(f"metal-gen generate -m {model} -p hi --max-seq-len 600 -n 200 -q --markdown")
        session.wait_for(lambda: session.lines_scrolled_off() > 5)
        session.resize(30, 6)
        session.wait_for_prompt()
        lines = session.screen(scrollback=True).splitlines()
        assert lines.count(" • ab") == 40
        assert lines[-2:] == [" • ab", PROMPT.strip()]
