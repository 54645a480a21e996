"""Prompts from files, escapes, and a text that goes into a file."""

import json
import re
import signal
from pathlib import Path

import pytest
from cli_process import run_cli, start_cli
from tiny_text_checkpoint import SAID

from metal_gen.cli.output.output_file import OutputFile
from metal_gen.errors import ExitCode, UsageError

pytest_plugins = ("fixtures_text", "fixtures_cli")

USAGE = 2


@pytest.fixture
def pipe_in(monkeypatch, tmp_path):
    """Puts bytes on standard input."""

    def pipe_in(data):
        (tmp_path / "stdin").write_bytes(data)
        monkeypatch.setattr("sys.stdin", (tmp_path / "stdin").open())

    return pipe_in


@pytest.fixture
def prompt_of(run_here, echo):
    """The prompt that arguments make."""

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
    assert outcome.stdout.decode() == SAID.partition("\n")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", r"a\d", "--escape"), r"--prompt has an escape that means nothing: \d"),
        (("-p", "a\\", "--escape"), "--prompt has an escape that means nothing: \\"),
        (("-p", r"\ud800", "--escape"), r"--prompt has an escape that means nothing: \ud800"),
        (("-p", "a", "--stop", r"\U99999999", "--escape"), r"--stop has an escape that means nothing: \U9"),
        (("--prompt-file", "f", "--escape"), "--escape has no effect"),
        (("-p", "a", "-p", "b"), "--prompt is given 2 times"),
        (("-p", "-", "--prompt-file", "-"), "--prompt - and --prompt-file - are the same"),
        (("--prompt-file", "missing"), "--prompt-file missing cannot be read: No such file or directory"),
        (("--prompt-file", "."), "--prompt-file . cannot be read: Is a directory"),
        (("--prompt-file", "latin"), "--prompt-file latin is not UTF-8: byte 1 is 0xe9"),
        (("--prompt-file", "empty"), "the prompt is empty"),
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


# A file


def test_a_file_gets_what_a_pipe_would(run_here, speaker, tmp_path):
    (tmp_path / "out").write_text("older")
    outcome = run_here("generate", "-m", speaker, "-p", "hi", "-o", "out", "--markdown")
    assert (outcome.code, outcome.stdout) == (0, b"")
    assert (tmp_path / "out").read_bytes() == SAID.encode()
    assert re.fullmatch(r"metal-gen: seed \d+\n", outcome.stderr)
    samples = ("--samples", "2", "--stop", "é", "-q")
    run_here("generate", "-m", speaker, "-p", "hi", "-o", "out", *samples)
    assert (tmp_path / "out").read_bytes() == b"[red] a\0" * 2
    run_here("generate", "-m", speaker, "-p", "hi", "-o", "out", "--jsonl")
    assert json.loads((tmp_path / "out").read_text().splitlines()[-1])["text"] == SAID
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_dash_is_standard_output(run_here, speaker, tmp_path):
    outcome = run_here("generate", "-m", speaker, "-p", "hi", "-o", "-")
    assert (outcome.code, outcome.stdout) == (0, SAID.encode())
    assert list(tmp_path.iterdir()) == []


def test_a_file_needs_no_stdout(speaker, tmp_path):
    outcome = run_cli("generate", "-m", speaker, "-p", "hi", "-o", "out", home=tmp_path, redirect=">&-")
    assert outcome.code == 0
    assert (tmp_path / "out").read_bytes() == SAID.encode()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, b"terminated"), (signal.SIGHUP, 129, b"hung up")]
)
def test_a_run_that_is_ended_leaves_an_older_file_as_it_was(babbler, tmp_path, number, code, word):
    (tmp_path / "out").write_text("older")
    arguments = ("generate", "-m", babbler, "-p", "hi", "-o", "out", "--logprobs", "0")
    with start_cli(*arguments, "--max-seq-len", "20000", home=tmp_path) as process:
        while not process.stderr.readline().startswith(b"{"):
            pass
        process.send_signal(number)
        assert process.stderr.read().endswith(b"metal-gen: " + word + b"\n")
    assert process.returncode == code
    assert Path(tmp_path / "out").read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# A text without an answer


@pytest.mark.parametrize(
    ("tokens", "when"),
    [("3", "while the model was thinking"), ("5", "right after the thinking")],
)
@pytest.mark.parametrize("more", [(), ("--json",), ("--samples", "2")], ids=" ".join)
def test_a_text_without_an_answer_has_its_own_exit_code(run_here, brooder, tmp_path, tokens, when, more):
    (tmp_path / "out").write_text("older")
    arguments = ("generate", "-m", brooder, "-p", "hi", "-n", tokens, *more)
    outcome = run_here(*arguments, "-q")
    assert outcome.code == ExitCode.NO_ANSWER == 10
    said = f"metal-gen: there is no answer: the text ended {when}, after {tokens} tokens: length (max_tokens)"
    hint = "hint: raise --max-tokens, or switch thinking off with --no-thinking\n"
    assert outcome.stderr == f"{said}\n{hint}"
    outcome = run_here(*arguments, "-q", "-o", "out")
    assert outcome.stderr == f"{said}; nothing is written to out\n{hint}"
    assert (tmp_path / "out").read_text() == "older"


def test_a_full_cache_leaves_a_thinker_without_an_answer(run_here, brooder):
    outcome = run_here("generate", "-m", brooder, "-p", "hi", "--max-seq-len", "25")
    assert (outcome.code, outcome.stdout) == (ExitCode.NO_ANSWER, b"")
    assert "length (cache_full)\nhint: raise --max-seq-len, or switch thinking off" in outcome.stderr


def test_an_answer_of_one_character_is_one(run_here, brooder):
    assert run_here("generate", "-m", brooder, "-p", "hi", "-n", "6").code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_device_that_is_full_is_one_sentence(run_here, speaker):
    outcome = run_here("generate", "-m", speaker, "-p", "hi", "-q", "-o", "/dev/full")
    assert (outcome.code, outcome.stdout) == (1, b"")
    assert outcome.stderr == "metal-gen: /dev/full cannot be written: No space left on device\n"


def test_an_output_in_a_folder_without_permission_is_refused(monkeypatch, tmp_path):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        OutputFile(tmp_path / "out")
