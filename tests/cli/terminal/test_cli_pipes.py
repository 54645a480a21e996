"""Tests prompts from files, and of escapes."""

import json
import re

import pytest
from tiny_text_checkpoint import SAID

pytest_plugins = ("fixtures_text", "fixtures_cli")

USAGE = 2


@pytest.fixture
def prompt_of(run_here, echo):
    """Return the prompt for some arguments."""

    def prompt_of(*arguments):
        outcome = run_here("generate", "-m", echo, *arguments)
        assert outcome.code == 5, outcome.stderr
        return json.loads(re.search(r"PROMPT (.*)", outcome.stderr)[1])

    return prompt_of


# The prompt


@pytest.mark.parametrize(
    ("arguments", "stdin", "prompt"),
    [
        pytest.param(("--prompt-file", "f"), None, "from a file\n", id="file"),
        pytest.param(("--prompt-file", "f", "-p", "why?"), None, "from a file\n\nwhy?", id="file-then-flag"),
        pytest.param(("--prompt-file", "f", "-p", "?"), b"in\n", "in\nfrom a file\n\n?", id="pipe-file-flag"),
        pytest.param(("--prompt-file", "-", "-p", "why?"), b"in\n", "in\nwhy?", id="dash-then-flag"),
        pytest.param(("-p", "-", "--prompt-file", "f"), b"in\n", "in\nfrom a file\n", id="dash-and-file"),
        pytest.param(("--prompt-file", "empty", "-p", "why?"), None, "why?", id="empty-file"),
        pytest.param(("a prompt",), None, "a prompt", id="argument"),
        pytest.param(("--", "-5 + 3"), None, "-5 + 3", id="argument-with-dash"),
        pytest.param(("why?",), b"in\n", "in\nwhy?", id="pipe-then-argument"),
        pytest.param(("-",), b"in\n", "in", id="dash-argument"),
        pytest.param((r"a\nb", "--escape"), None, "a\nb", id="escape-in-argument"),
        pytest.param(("-p", r"a\n\t\\n\"\u00e9\U0001f600", "--escape"), None, 'a\n\t\\n"é😀', id="escape"),
        pytest.param(("--prompt-file", "back", "-p", r"\n", "--escape"), None, "\\n\n\n", id="files-stay"),
        pytest.param(("-p", "x", "--system", r"a\nb", "--escape"), None, "x", id="system"),
    ],
)
def test_where_a_prompt_comes_from(prompt_of, pipe_in, tmp_path, arguments, stdin, prompt):
    for name, text in (("f", "from a file\n\n"), ("empty", ""), ("back", r"\n")):
        (tmp_path / name).write_text(text)
    if stdin is not None:
        pipe_in(stdin)
    assert prompt_of(*arguments) == prompt


def test_a_stop_text_can_be_written_with_escapes(run_here, speaker):
    outcome = run_here("generate", "-m", speaker, "-p", "hi", "--stop", r"\n", "--escape", "-q")
    assert outcome.stdout.decode() == SAID.partition("\n")[0] + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", r"a\d", "--escape"), r"unknown escape in --prompt: \d"),
        (("-p", "a\\", "--escape"), "unknown escape in --prompt: \\"),
        (("-p", r"\ud800", "--escape"), r"unknown escape in --prompt: \ud800"),
        (("-p", "a", "--stop", r"\U99999999", "--escape"), r"unknown escape in --stop: \U9"),
        (("--prompt-file", "f", "--escape"), "--escape has no effect"),
        (("a", "-p", "b"), "the prompt is given twice, as an argument and with --prompt"),
        (("Tell", "me", "-q"), "unexpected argument: me"),
        (("-p", "a", "-p", "b"), "--prompt is given 2 times"),
        (("-p", "-", "--prompt-file", "-"), "--prompt - and --prompt-file - both read standard input"),
        (("--prompt-file", "missing"), "--prompt-file missing cannot be read: No such file or directory"),
        (("--prompt-file", "."), "--prompt-file . cannot be read: Is a directory"),
        (("--prompt-file", "latin"), "--prompt-file latin is not UTF-8: byte 1 is 0xe9"),
        (("--prompt-file", "empty"), "the prompt is empty: nothing in --prompt-file empty"),
        (("--prompt-file", "f", "-o", "./f"), "the output ./f is the prompt"),
        (("-p", "a", "-o", "missing/f"), "--output missing/f cannot be written: there is no folder missing"),
        (("-p", "a", "--json", "--jsonl"), "--json contradicts --jsonl"),
        (("-p", "a", "--json", "--markdown"), "--json contradicts --markdown"),
        (("-p", "a", "--jsonl", "--hide-thinking"), "--jsonl contradicts --hide-thinking"),
        (("-p", "a", "--logprobs", "0", "--markdown"), "--logprobs contradicts --markdown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_meant_is_refused(run_here, speaker, tmp_path, arguments, message):
    for name, data in (("f", b"x"), ("empty", b""), ("latin", b"f\xe9")):
        (tmp_path / name).write_bytes(data)
    outcome = run_here("generate", "-m", speaker, *arguments)
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert outcome.stderr.startswith(f"metal-gen: {message}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "f", "latin"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("-p", "x"), b"a\nb\nc\n", "3 lines of standard input come before the prompt"),
        (("x",), b"a", "1 line of standard input comes before the prompt"),
        (("-p", "x", "-q"), b"a\n", ""),
        (("-p", "x"), b"", ""),
        ((), b"a\n", ""),
        (("-p", "x", "--prompt-file", "-"), b"a\n", ""),
    ],
)
def test_lines_that_a_prompt_did_not_ask_for_are_counted(run_here, echo, pipe_in, arguments, stdin, said):
    pipe_in(stdin)
    stderr = run_here("generate", "-m", echo, *arguments).stderr
    assert ("standard input" in stderr) == bool(said)
    assert said in stderr
