"""Tests that an option which would do nothing in this form of a command is refused."""

from pathlib import Path

import pytest
from cli_process import run_in_terminal

pytest_plugins = ("fixtures_cli",)

SCORE = ("score", "text.txt")
CHOICES = ("rank", "--prompt", "a", "--choice", "b")
DOCUMENTS = ("rank", "--query", "a", "--document", "b")
STREAM = ("batch", "rows.jsonl", "-o", "-")
CHECK = ("batch", "rows.jsonl", "--check")
OF_PROMPTS = (
    *(("--system", "a"), ("--raw",), ("--no-raw",), ("--thinking",), ("--prefill", "a")),
    ("--template-arg", "a=1"),
)
REFUSED = [
    *((SCORE, given, "has no effect on a text without a prompt") for given in OF_PROMPTS),
    *(((*DOCUMENTS, "--method", "reranker"), given, "has no effect on a reranker") for given in OF_PROMPTS),
    (SCORE, ("--batch-size", "2"), "has no effect on one text"),
    ((*SCORE, "--prompt", "a"), ("--stride", "3"), "has no effect on a text after a prompt"),
    *(
        (one, given, "needs --jsonl")
        for one in (SCORE, CHOICES, DOCUMENTS)
        for given in (("--fsync-interval", "0"), ("--overwrite",), ("--ordered",), ("--summary", "a"))
    ),
    (DOCUMENTS, ("--by", "sum"), "has no effect on documents"),
    (CHOICES, ("--instruction", "c"), "has no effect on choices"),
    (CHOICES, ("--method", "likelihood"), "has no effect on choices"),
    (STREAM, ("--overwrite",), "has no effect on standard output"),
    (STREAM, ("--fsync-interval", "0"), "has no effect on standard output"),
    (("score", "rows.jsonl", "--jsonl"), ("--overwrite",), "has no effect on standard output"),
    *((CHECK, given, "contradicts --check") for given in (("--ordered",), ("--fsync-interval", "0"))),
    (("generate", "a"), ("--schema-indent", "2"), "has no effect without --schema"),
    *(
        (command, ("--prefix-cache-dir", "p"), "has no effect without --prefix-cache")
        for command in (("generate", "a"), ("chat",), STREAM)
    ),
    (("bench", "--only", "memory"), ("--depths", "1"), "has no effect on --only memory"),
    (("bench", "--only", "decode,step"), ("--prompt-tokens", "8"), "has no effect on --only decode,step"),
    (("bench", "--only", "prefill"), ("--decode-tokens", "8"), "has no effect on --only prefill"),
    (("bench", "--only", "decode"), ("--capacities", "64"), "has no effect on --only decode"),
]


@pytest.mark.parametrize(
    ("command", "given", "why"),
    REFUSED,
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_option_that_would_do_nothing_is_refused(run_here, command, given, why):
    Path("text.txt").write_text("A fox went out.")
    Path("rows.jsonl").write_text('{"id": 1, "prompt": "a"}\n')
    outcome = run_here(*command, *given)
    assert (outcome.code, outcome.stdout) == (2, b"")
    message, hint = outcome.stderr.splitlines()[-2:]
    # The library says the same, without dashes.
    assert message.startswith((f"metal-gen: {given[0]} {why}", f"metal-gen: {given[0][2:]} {why}"))
    assert hint.startswith("hint: ")


def test_messages_of_a_terminal_end_with_a_newline(tmp_path):
    outcome = run_in_terminal("chat", "--null", home=tmp_path, attached=("stdin",))
    assert (outcome.code, outcome.stdout) == (2, b"")
    assert "--null has no effect at a terminal\nhint: " in outcome.stderr


@pytest.mark.parametrize(
    "command",
    [
        (*SCORE, "--prompt", "a", "--system", "b", "--no-thinking"),
        (*SCORE, "--stride", "3"),
        (*CHOICES, "--by", "mean", "--batch-size", "2", "--prefill", "a"),
        (*DOCUMENTS, "--raw", "--prefill", "a"),
        (*STREAM, "--ordered", "--keep-fields", "-n", "1"),
        ("generate", "a", "-n", "1", "--escape", "--no-markdown"),
        ("bench", "--only", "graph", "--depths", "1", "--repeats", "1", "--warmup", "0"),
    ],
    ids=" ".join,
)
def test_an_option_that_does_something_is_not(run_here, command):
    Path("text.txt").write_text("A fox went out.")
    Path("rows.jsonl").write_text('{"id": 1, "prompt": "a"}\n')
    assert run_here(*command, "-q").code == 0


def test_settings_of_files_and_variables_are_for_other_runs_too(run_here, monkeypatch):
    Path("text.txt").write_text("A fox went out.")
    monkeypatch.setenv("METAL_GEN_SYSTEM", "Answer briefly.")
    monkeypatch.setenv("METAL_GEN_RAW", "true")
    monkeypatch.setenv("METAL_GEN_BATCH_SIZE", "2")
    assert run_here(*SCORE, "-q").code == 0
