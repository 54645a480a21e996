"""Tests the end of a text, and of what distinguishes thinking from an answer."""

import json

import jsonschema
import pytest
from cli_process import ROOT, run_cli
from tiny_text_checkpoint import CHATML, SAID, SAID_LINE, replace_letter, write_text_checkpoint

pytest_plugins = ("fixtures_text", "fixtures_cli")

SCHEMA = json.loads((ROOT / "metal_gen" / "schemas" / "output.json").read_text())
QUIET = ("-p", "hi", "-q")


@pytest.fixture(scope="session")
def liner(text_checkpoints):
    """A model that ends its text with a newline."""
    return str(write_text_checkpoint(text_checkpoints / "liner", says=b"ab\n"))


@pytest.mark.parametrize("option", ["--no-newline", "-j"])
def test_a_text_is_a_line_unless_its_exact_bytes_are_wanted(run_here, speaker, tmp_path, option):
    for place in ((), ("-o", "out")):
        for exact, expected in (((), SAID_LINE), ((option,), SAID.encode())):
            outcome = run_here("generate", "-m", speaker, *QUIET, *place, *exact)
            said = (tmp_path / "out").read_bytes() if place else outcome.stdout
            assert (outcome.code, said) == (0, expected)


def test_a_text_that_ends_with_a_newline_gets_no_other(run_here, liner):
    assert run_here("generate", "-m", liner, *QUIET).stdout == b"ab\n"


def test_a_text_of_nothing_is_a_line_too(run_here, speaker):
    assert run_here("generate", "-m", speaker, *QUIET, "--stop", "[").stdout == b"\n"


def test_a_missing_answer_gets_no_line(run_here, brooder):
    assert run_here("generate", "-m", brooder, *QUIET, "-n", "3").stdout == b""


def test_several_texts_keep_their_bytes(run_here, speaker):
    assert run_here("generate", "-m", speaker, *QUIET, "--samples", "2").stdout == (SAID.encode() + b"\0") * 2


def test_in_a_log_of_both_streams_text_and_messages_have_lines_of_their_own(thinker, tmp_path):
    arguments = ("generate", "-m", thinker, "-p", "hi", "--seed", "7")
    for _ in range(2):
        assert run_cli(*arguments, home=tmp_path, redirect=">>log 2>&1").code == 0
    lines = ["Thinking...", "hm \u241b.", "...done thinking.", "42", "metal-gen: seed 7, float32"]
    assert (tmp_path / "log").read_text().splitlines() == 2 * lines


def test_a_last_token_of_thinking_and_answer_is_shown_in_both_places(run_here, tmp_path):
    folder = tmp_path / "model"
    template = CHATML + "{{ '<think>' }}"
    write_text_checkpoint(folder, says=b"abZ", has_tags=False, chat_template=template)
    replace_letter(folder, "Z", "c</think>D")
    arguments = ("generate", "-m", str(folder), "-p", "hi", "-n", "3", "--seed", "7")
    outcome = run_here(*arguments)
    assert outcome.stdout == b"D\n"
    assert outcome.stderr.startswith("Thinking...\nabc\n...done thinking.\n")
    assert "abc" not in run_here(*arguments, "--hide-thinking").stderr
    *_, last, whole = map(json.loads, run_here(*arguments, "--jsonl").stdout.splitlines())
    assert (last["event"], last["reasoning"], last["text"]) == ("text", "c", "D")
    assert (whole["reasoning"], whole["text"], whole["thinking"]["tokens"]) == ("abc", "D", 3)
    definition = {"$ref": "#/$defs/event"}
    jsonschema.Draft202012Validator({**SCHEMA, "anyOf": [definition]}).validate(last)


def test_a_missing_answer_after_thinking_in_the_same_token_gets_no_line(run_here, tmp_path):
    for says, tokens in ((b"aZ", "2"), (b"Z", "1")):
        folder = tmp_path / f"says{tokens}"
        template = CHATML + "{{ '<think>' }}"
        write_text_checkpoint(folder, says=says, has_tags=False, chat_template=template)
        replace_letter(folder, "Z", "c</think>D")
        outcome = run_here("generate", "-m", str(folder), *QUIET, "-n", tokens, "--stop", "D")
        assert (outcome.code, outcome.stdout) == (10, b""), says


def test_thinking_that_did_not_end_is_not_called_done(run_here, brooder):
    outcome = run_here("generate", "-m", brooder, "-p", "hi", "-n", "3", "--samples", "2", "--seed", "7")
    assert outcome.stderr.count("Thinking...\nabc\nmetal-gen: ") == 2
    assert "done" not in outcome.stderr


def test_a_json_object_is_as_it_is(run_here, speaker):
    outcome = run_here("generate", "-m", speaker, *QUIET, "--json", "-j")
    assert (outcome.code, outcome.stderr[:39]) == (2, "metal-gen: --json contradicts --no-newl")
