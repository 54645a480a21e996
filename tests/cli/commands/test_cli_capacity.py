"""Tests the cache size of a command, its messages if that is too small, and inputs it does not read."""

import io
import json
import re
import resource
import subprocess
import sys

import pytest
from cli_process import clean_environment, command, run_cli
from tiny_text_checkpoint import CYCLE, write_text_checkpoint

from metal_gen.cli.input.prompt_source import PART_BYTES, read_prompt
from metal_gen.cli.terminal.console import Console
from metal_gen.engine.stopping import ANSWER_TOKENS
from metal_gen.errors import DoesNotFitError
from metal_gen.generation.memory import capacity

pytest_plugins = ("fixtures_cli", "fixtures_text")

DOES_NOT_FIT = 6
STOPS_SOON = ("--stop", bytes(CYCLE[:2]).decode())


@pytest.fixture(scope="module")
def long_babbler(text_checkpoints):
    """A model that repeats `CYCLE` until the cache is full, trained for long texts."""
    folder = text_checkpoints / "long-babbler"
    return str(write_text_checkpoint(folder, says=CYCLE, forever=True, max_position_embeddings=40_960))


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A prompt of 300 tokens, more than the usual cache holds."""
    monkeypatch.setattr(capacity, "USUAL_TOKENS", 200)
    path = tmp_path / "notes.txt"
    path.write_text("x" * 300, encoding="utf-8")
    return path


def capacity_in(outcome):
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)["memory"]["max_seq_len"]


def generate(run_here, model, *arguments):
    return run_here("generate", "--model", model, "--raw", "--json", *arguments)


def test_a_long_prompt_needs_no_flag(run_here, long_babbler, notes):
    said = ("--prompt-file", notes, "--prompt", "?")
    assert capacity_in(generate(run_here, long_babbler, *said, "-n", 5)) == 302 + 5
    assert capacity_in(generate(run_here, long_babbler, *said, "-n", 5, "--samples", 2)) == 302 + 5
    assert capacity_in(generate(run_here, long_babbler, *said, *STOPS_SOON)) == 302 + ANSWER_TOKENS


def test_a_short_one_has_the_usual_cache(run_here, long_babbler):
    assert capacity_in(generate(run_here, long_babbler, "-p", "hi", "-n", 5)) == capacity.USUAL_TOKENS


def test_the_size_and_its_reason_are_shown(run_here, long_babbler, notes):
    said = ("--model", long_babbler, "--raw", "--prompt-file", notes, "-n", 5, "-v")
    outcome = run_here("generate", *said)
    assert "max_seq_len = 305 (the prompt of 300 tokens and max_tokens)" in outcome.stderr


def test_doing_as_the_hint_says_makes_room(run_here, long_babbler, notes):
    said = ("--prompt-file", notes, *STOPS_SOON)
    outcome = generate(run_here, long_babbler, *said, "--max-seq-len", 200)
    assert outcome.code == DOES_NOT_FIT
    proposed = int(re.search(r"--max-seq-len (\d+)", outcome.stderr)[1])
    assert proposed == 300 + ANSWER_TOKENS
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
    assert f"max_seq_len = {capacity.CHAT_TOKENS} (the usual size of a chat)" in outcome.stderr


# Prompts without an end


class Endless(io.RawIOBase):
    """A stream that yields as many bytes as requested, and counts them."""

    name = "endless"
    given = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        buffer[:] = b"y" * len(buffer)
        self.given += len(buffer)
        return len(buffer)


def test_of_an_endless_prompt_no_more_is_read_than_could_fit(monkeypatch):
    endless = Endless()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(endless)))
    with pytest.raises(DoesNotFitError, match="more than 3,000,000 bytes"):
        read_prompt(["-"], None, Console(), lambda: 3_000_000)
    assert endless.given < 3_000_000 + 2 * PART_BYTES


def test_the_model_is_not_asked_about_a_short_prompt(monkeypatch):
    def refuse():
        raise AssertionError("asked")

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hi\r\n")))
    assert read_prompt(["-"], None, Console(), refuse) == "hi"


def test_an_endless_pipe_is_refused(babbler, tmp_path):
    yes = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    done = subprocess.run(
        command("generate", "--model", babbler, "-p", "x", "-n", "3"),
        stdin=yes.stdout,
        env=clean_environment(tmp_path),
        capture_output=True,
        timeout=60,
        check=False,
    )
    yes.kill()
    yes.wait()
    assert (done.returncode, done.stdout) == (DOES_NOT_FIT, b"")
    assert b"metal-gen: the prompt on standard input does not fit: it has more than " in done.stderr


def test_a_device_without_an_end_is_refused(run_here, babbler):
    outcome = run_here("generate", "--model", babbler, "--prompt-file", "/dev/zero")
    assert outcome.code == DOES_NOT_FIT
    assert "--prompt-file /dev/zero does not fit" in outcome.stderr


def test_what_cannot_fit_is_not_encoded(run_here, babbler, monkeypatch, tmp_path):
    monkeypatch.setattr("metal_gen.text.tokenizer.Tokenizer._tokenizer_for", None)
    path = tmp_path / "long.txt"
    path.write_text("x" * (PART_BYTES - 1), encoding="utf-8")
    outcome = run_here("generate", "--model", babbler, "--prompt-file", path)
    assert outcome.code == DOES_NOT_FIT
    assert "the prompt of 1,048," in outcome.stderr
    assert "256 tokens" in outcome.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to this limit")
@pytest.mark.parametrize("limit_bytes", [60_000_000, 220_000_000, 600_000_000])
def test_little_address_space_is_refused_and_ends_nothing_by_a_signal(babbler, tmp_path, limit_bytes):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))

    done = subprocess.run(
        command("generate", "--model", babbler, "-p", "x", "-n", "3"),
        env=clean_environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=limit,
        timeout=60,
        check=False,
    )
    assert done.returncode == DOES_NOT_FIT, done.stderr
    assert b"metal-gen: " in done.stderr
