"""Tests `-o`: a file is whole or absent, and a stream is only written to."""

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import pytest
from cli_process import run_cli, start_cli
from tiny_text_checkpoint import CYCLE, SAID, SAID_LINE

from metal_gen.cli.output.output_file import CollectedText, OutputFile, require_different
from metal_gen.errors import ExitCode, UsageError
from metal_gen.files import paths

pytest_plugins = ("fixtures_text", "fixtures_cli")

USAGE = 2


def test_a_file_gets_what_a_pipe_would(run_here, speaker, tmp_path):
    (tmp_path / "out").write_text("older")
    outcome = run_here("generate", "-m", speaker, "-p", "hi", "-o", "out", "--markdown")
    assert (outcome.code, outcome.stdout) == (0, b"")
    assert (tmp_path / "out").read_bytes() == SAID_LINE
    assert re.fullmatch(r"metal-gen: seed \d+, \w+\n", outcome.stderr)
    samples = ("--samples", "2", "--stop", "é", "-q")
    run_here("generate", "-m", speaker, "-p", "hi", "-o", "out", *samples)
    assert (tmp_path / "out").read_bytes() == b"[red] a\0" * 2
    run_here("generate", "-m", speaker, "-p", "hi", "-o", "out", "--jsonl")
    assert json.loads((tmp_path / "out").read_text().splitlines()[-1])["text"] == SAID
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_dash_is_standard_output(run_here, speaker, tmp_path):
    outcome = run_here("generate", "-m", speaker, "-p", "hi", "-o", "-")
    assert (outcome.code, outcome.stdout) == (0, SAID_LINE)
    assert list(tmp_path.iterdir()) == []


def test_a_file_needs_no_stdout(speaker, tmp_path):
    outcome = run_cli("generate", "-m", speaker, "-p", "hi", "-o", "out", home=tmp_path, redirect=">&-")
    assert outcome.code == 0
    assert (tmp_path / "out").read_bytes() == SAID_LINE


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, b"interrupted"),
        (signal.SIGTERM, 143, b"terminated"),
        (signal.SIGHUP, 129, b"hung up"),
    ],
)
def test_a_run_that_is_ended_leaves_an_older_file_as_it_was(babbler, tmp_path, number, code, word):
    (tmp_path / "out").write_text("older")
    arguments = ("generate", "-m", babbler, "-p", "hi", "-o", "out", "--logprobs", "0")
    with start_cli(*arguments, "--max-seq-len", "20000", home=tmp_path) as process:
        while not process.stderr.readline().startswith(b"{"):
            pass
        process.send_signal(number)
        *_, kept, said = process.stderr.read().splitlines()
    assert (process.returncode, said) == (code, b"metal-gen: " + word)
    assert (tmp_path / "out").read_text() == "older"
    if number == signal.SIGINT:
        assert kept == b"metal-gen: the text so far is in out.part"
        (tmp_path / "out.part").rename(tmp_path / "part")
        text = (tmp_path / "part").read_bytes()
        assert text.endswith(b"\n")
        assert text[:-1] == bytes(islice(cycle(CYCLE), len(text) - 1))
        (tmp_path / "part").unlink()
    else:
        assert kept == b"metal-gen: nothing is written to out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_stopped_text_does_not_follow_a_link_next_to_the_file(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "out.part").symlink_to("theirs")
    assert OutputFile(tmp_path / "out").write_beside("text") is None
    assert (tmp_path / "theirs").read_text() == "theirs"


def test_what_was_stopped_does_not_replace_the_prompt(tmp_path):
    part = tmp_path / "out.part"
    part.write_text("go on from here")
    assert OutputFile(tmp_path / "out", spares=part).write_beside("text") is None
    assert part.read_text() == "go on from here"
    assert OutputFile(tmp_path / "out", spares=tmp_path / "other").write_beside("text") == part


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
    said, _ = outcome.stderr.splitlines()
    assert said == "metal-gen: /dev/full cannot be written: No space left on device"


@pytest.mark.parametrize("more", [(), ("--samples", "2"), ("--json",)], ids=" ".join)
def test_a_fifo_gets_what_a_pipe_would(run_here, speaker, tmp_path, more):
    os.mkfifo(tmp_path / "fifo")
    arguments = ("generate", "-m", speaker, "-p", "hi", "-q", "--seed", "1", *more)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit((tmp_path / "fifo").read_bytes)
        assert run_here(*arguments, "-o", "fifo").code == 0
        got = reading.result(timeout=30)
    assert without_measurements(got) == without_measurements(run_here(*arguments).stdout)
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]


def without_measurements(text):
    return re.sub(rb'"(\w+_s|\w+_tps|\w+_bytes)": [^,}]+', b"", text)


def test_what_is_open_is_written_to_and_not_replaced(run_here, speaker, tmp_path):
    (tmp_path / "log").write_text("older\n")
    with (tmp_path / "log").open("ab") as log:
        os.set_inheritable(log.fileno(), True)
        (tmp_path / "link").symlink_to(f"/dev/fd/{log.fileno()}")
        for place in (f"/dev/fd/{log.fileno()}", "link"):
            outcome = run_here("generate", "-m", speaker, "-p", "hi", "-q", "-o", place)
            assert (outcome.code, outcome.stdout, outcome.stderr) == (0, b"", "")
    assert (tmp_path / "log").read_bytes() == b"older\n" + 2 * SAID_LINE


def test_dev_stdout_is_standard_output(speaker, tmp_path):
    (tmp_path / "log").write_text("older\n")
    arguments = ("generate", "-m", speaker, "-p", "hi", "-o", "/dev/stdout")
    assert run_cli(*arguments, home=tmp_path, redirect=">>log").code == 0
    assert (tmp_path / "log").read_bytes() == b"older\n" + SAID_LINE
    outcome = run_cli(*arguments, home=tmp_path, redirect=">&-")
    assert (outcome.code, outcome.stderr[:37]) == (USAGE, "metal-gen: standard output is closed:")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_an_older_file_keeps_its_mode(run_here, speaker, tmp_path, mode):
    (tmp_path / "out").touch()
    (tmp_path / "out").chmod(mode)
    run_here("generate", "-m", speaker, "-p", "hi", "-o", "out")
    assert (tmp_path / "out").stat().st_mode & 0o777 == mode


def test_while_a_text_comes_there_is_nothing_that_a_kill_could_leave(
    monkeypatch, run_here, speaker, tmp_path
):
    seen = []
    monkeypatch.setattr(CollectedText, "write_text", lambda text, piece: seen.extend(tmp_path.iterdir()))
    assert run_here("generate", "-m", speaker, "-p", "hi", "-o", "out").code == 0
    assert seen == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("circle", "the output circle cannot be used: Too many levels of symbolic links"),
        ("/dev/fd/999", "--output /dev/fd/999 cannot be written: it is not open for writing"),
        ("n" * 256, f"the output {'n' * 256} cannot be used: File name too long"),
        (".", "--output . cannot be written: it is a folder"),
    ],
)
def test_where_nothing_can_be_written(run_here, speaker, tmp_path, name, message):
    (tmp_path / "circle").symlink_to("circle")
    outcome = run_here("generate", "-m", speaker, "-p", "hi", "-o", name)
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert outcome.stderr.startswith(f"metal-gen: {message}\nhint: ")


def test_a_working_folder_that_is_gone_is_one_sentence(monkeypatch, run_here, speaker, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    outcome = run_here("generate", "-m", speaker, "-p", "hi", "-q", "-o", "out")
    assert (outcome.code, outcome.stderr[:61]) == (
        USAGE,
        "metal-gen: the output out cannot be used: the working folder ",
    )
    assert run_here("generate", "-m", speaker, "-p", "hi", "-q", "-o", tmp_path / "out").code == 0


def test_an_output_in_a_folder_without_permission_is_refused(monkeypatch, tmp_path):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        OutputFile(tmp_path / "out")


@pytest.mark.parametrize("other", ["same", "./same", "hard link", "soft link", "/dev/fd/{}"])
def test_a_file_is_the_same_by_any_name(tmp_path, monkeypatch, other):
    monkeypatch.chdir(tmp_path)
    Path("same").touch()
    Path("hard link").hardlink_to("same")
    Path("soft link").symlink_to("same")
    with Path("same").open() as opened, pytest.raises(UsageError, match="is the input"):
        require_different(input="same", output=other.format(opened.fileno()))


@pytest.fixture
def insensitive(tmp_path, monkeypatch):
    """Stands in for a disk of a Mac, on which the case of names does not tell files apart."""
    look = Path.stat

    def stat(path, **options):
        names = path.parent.iterdir() if path.parent == tmp_path else ()
        return look(next((name for name in names if name.name.lower() == path.name.lower()), path), **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(paths.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(paths.os, "pathconf", lambda folder, what: 0)


def test_case_does_not_tell_files_apart_where_the_disk_does_not(insensitive, tmp_path):
    (tmp_path / "Notes.txt").touch()
    with pytest.raises(UsageError, match=r"the output notes.txt is the input"):
        require_different(input="Notes.txt", output="notes.txt")
    with pytest.raises(UsageError, match=r"the summary NEW\u00c9 is the output"):
        require_different(output="newe\u0301", summary="NEW\u00c9")
    require_different(input="Notes.txt", output="other.txt", summary="third")


@pytest.mark.parametrize("says", [1, OSError(22, "Invalid argument")])
def test_it_does_elsewhere(tmp_path, monkeypatch, says):
    def pathconf(folder, what):
        if isinstance(says, OSError):
            raise says
        return says

    monkeypatch.setattr(paths.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(paths.os, "pathconf", pathconf)
    require_different(output=str(tmp_path / "out"), summary=str(tmp_path / "Out"))


OWN_FILES = [
    (("generate", "hi", "--config", "c.toml", "-o", "c.toml"), "the output c.toml is the config"),
    (("generate", "hi", "-m", "m.gguf", "-o", "./m.gguf"), "the output ./m.gguf is the model"),
    (("batch", "in", "-o", "m.gguf", "-m", "m.gguf", "--overwrite"), "the output m.gguf is the model"),
    (("bench", "--config", "c.toml", "-o", "c.toml"), "the output c.toml is the config"),
    (
        ("batch", "in", "-o", "out", "--summary", ".out.run.json"),
        "the summary .out.run.json is the file that says which run made the output",
    ),
    (
        ("batch", "in", "-o", "link", "--summary", ".out.run.json"),
        "the summary .out.run.json is the file that says which run made the output",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), OWN_FILES, ids=lambda value: str(value))
def test_files_that_a_run_reads_or_keeps_cannot_be_its_output(run_here, tmp_path, arguments, message):
    for name in ("c.toml", "m.gguf", "in"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link").symlink_to("out")
    outcome = run_here(*arguments)
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert outcome.stderr == f"metal-gen: {message}\nhint: name another file\n"
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "c.toml").read_bytes() == b""


def test_a_result_replaces_an_older_one_but_no_records(run_here, speaker, tmp_path):
    (tmp_path / "in").write_text('{"text": "A fox went out."}\n')
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("out")
    rows = ("score", "in", "--jsonl", "-o", "out", "-m", speaker, "-q")
    assert run_here(*rows).code == 0
    records = (tmp_path / "out").read_bytes()
    commands = {
        "generate": ("hi",),
        "score": ("in",),
        "rank": ("--prompt", "a", "--choice", "b"),
        "bench": ("--only", "memory", "--repeats", "1"),
    }
    for name, arguments in commands.items():
        command = (name, *arguments, "-m", speaker, "-q", "-o")
        for output in ("out", "link"):
            outcome = run_here(*command, output)
            assert (outcome.code, outcome.stdout) == (USAGE, b"")
            assert f"--output {output} would replace the records of a run over rows\n" in outcome.stderr
        before = (tmp_path / "old").read_bytes()
        assert run_here(*command, "old").code == 0
        assert (tmp_path / "old").read_bytes() != before
    assert (tmp_path / "out").read_bytes() == records
    outcome = run_here("score", "in", "--jsonl", "-o", "new", "-m", speaker, "-q", "--summary", "out")
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert (tmp_path / "out").read_bytes() == records


@pytest.mark.parametrize("command", ["generate", "score", "rank", "bench"])
def test_help_says_that_a_file_is_replaced(run_here, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "200")
    assert "in place of an older one" in run_here(command, "--help").stdout.decode()


def test_devices_and_other_files_may_be_used_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("one").touch()
    Path("other").touch()
    require_different(input="one", output="other", summary="new")
    require_different(input="/dev/null", output="/dev/null", summary="/dev/null")


def test_records_go_to_dev_stdout_and_replace_nothing_that_is_open(run_here, speaker, tmp_path):
    (tmp_path / "in").write_text('{"prompt": "hi"}\n')
    arguments = ("batch", "in", "-m", speaker, "-q", "-o")
    outcome = run_here(*arguments, "/dev/stdout")
    assert (outcome.code, json.loads(outcome.stdout)["text"]) == (0, SAID)
    with (tmp_path / "log").open("ab") as log:
        outcome = run_here(*arguments, f"/dev/fd/{log.fileno()}", "--overwrite")
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert "is open already" in outcome.stderr
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in", "log"]
