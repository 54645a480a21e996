"""The cache that a command takes, and what it says when that is too small."""

import json
import re

import pytest
from cli_process import run_cli
from tiny_text_checkpoint import CYCLE, write_text_checkpoint

from metal_gen.engine.stopping import ANSWER_TOKENS
from metal_gen.generation.capacity import CHAT_TOKENS, USUAL_TOKENS

pytest_plugins = ("fixtures_cli", "fixtures_text")

DOES_NOT_FIT = 6
STOPS_SOON = ("--stop", bytes(CYCLE[:2]).decode())


@pytest.fixture(scope="module")
def long_babbler(text_checkpoints):
    """Says `CYCLE` until the cache is full, and was trained for long texts."""
    folder = text_checkpoints / "long-babbler"
    return str(write_text_checkpoint(folder, says=CYCLE, forever=True, max_position_embeddings=40_960))


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("x" * 3000, encoding="utf-8")
    return path


def capacity_in(outcome):
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)["memory"]["max_seq_len"]


def generate(run_here, model, *arguments):
    return run_here("generate", "--model", model, "--raw", "--json", *arguments)


def test_a_long_prompt_needs_no_flag(run_here, long_babbler, notes):
    said = ("--prompt-file", notes, "--prompt", "?")
    assert capacity_in(generate(run_here, long_babbler, *said, "-n", 5)) == 3002 + 5
    assert capacity_in(generate(run_here, long_babbler, *said, "-n", 5, "--samples", 2)) == 3002 + 5
    assert capacity_in(generate(run_here, long_babbler, *said, *STOPS_SOON)) == 3002 + ANSWER_TOKENS


def test_a_short_one_has_the_usual_cache(run_here, long_babbler):
    assert capacity_in(generate(run_here, long_babbler, "-p", "hi", "-n", 5)) == USUAL_TOKENS


def test_the_size_and_its_reason_are_shown(run_here, long_babbler):
    outcome = run_here("generate", "--model", long_babbler, "--raw", "-p", "x" * 3000, "-n", 5, "-v")
    assert "max_seq_len = 3005 (the prompt of 3,000 tokens and max_tokens)" in outcome.stderr


def test_doing_as_the_hint_says_makes_room(run_here, long_babbler, notes):
    said = ("--prompt-file", notes, *STOPS_SOON)
    outcome = generate(run_here, long_babbler, *said, "--max-seq-len", 2048)
    assert outcome.code == DOES_NOT_FIT
    proposed = int(re.search(r"--max-seq-len (\d+)", outcome.stderr)[1])
    assert proposed == 3000 + ANSWER_TOKENS
    assert capacity_in(generate(run_here, long_babbler, *said, "--max-seq-len", proposed)) == proposed


def test_a_full_cache_names_a_larger_one_while_there_is_one(run_here, long_babbler, babbler):
    outcome = run_here("generate", "--model", long_babbler, "--raw", "-p", "hi", "--max-seq-len", 10)
    assert "the cache is full: max_seq_len is 10 (--max-seq-len)" in outcome.stderr
    assert f"--max-seq-len {10 + ANSWER_TOKENS}" in outcome.stderr
    outcome = run_here("generate", "--model", babbler, "--raw", "-p", "hi")
    assert "the cache is full: max_seq_len is 256 (all that the model was trained for)" in outcome.stderr
    assert "--max-seq-len" not in outcome.stderr


def test_a_chat_has_room_for_many_turns(long_babbler, tmp_path):
    outcome = run_cli("chat", "--model", long_babbler, "-v", "-n", "3", home=tmp_path, stdin=b"hi\n")
    assert f"max_seq_len = {CHAT_TOKENS} (the usual size of a chat)" in outcome.stderr
