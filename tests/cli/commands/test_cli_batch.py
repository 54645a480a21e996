"""Tests `metal-gen batch`: rows in, records out, killed and resumed."""

import json
import os
import pty
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from cli_process import clean_environment, command, run_cli, start_cli
from tiny_text_checkpoint import write_text_checkpoint

pytest_plugins = ("fixtures_batch", "fixtures_cli", "fixtures_text")

SEED = ("--seed", "7", "-n", "24")
STORIES = [
    {"id": f"row {number}", "prompt": f"Tell me a story about a {animal}."}
    for number, animal in enumerate("fox owl bear cat dog hen mouse goat duck crab".split())
]


def write_rows(folder, rows, name="in.jsonl"):
    lines = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))


def records(folder, name="out.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def size_of(path):
    return path.stat().st_size if path.exists() else 0


def texts(found):
    """Return texts by id; fail if an id occurs twice."""
    by_id = {record["id"]: record["text"] for record in found}
    assert len(by_id) == len(found)
    return by_id


def undisturbed_run(folder, **changes):
    """Return the texts of an uninterrupted run in a process of its own."""
    write_rows(folder, STORIES)
    arguments = ("--batch-size", "3", *SEED)
    outcome = run_cli("batch", "in.jsonl", "-o", "out.jsonl", *arguments, home=folder, **changes)
    assert outcome.code == 0, outcome.stderr
    return texts(records(folder))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, gambler):
    return undisturbed_run(tmp_path_factory.mktemp("undisturbed"), METAL_GEN_MODEL=gambler)


@pytest.fixture(scope="module")
def undisturbed_stories(tmp_path_factory):
    """Return the texts of the bundled model, which takes long enough to be killed."""
    return undisturbed_run(tmp_path_factory.mktemp("stories"))


def test_every_row_gets_a_text(undisturbed):
    assert undisturbed.keys() == {row["id"] for row in STORIES}
    assert len(set(undisturbed.values())) == len(STORIES)


def test_texts_do_not_depend_on_the_order_of_rows(batch, undisturbed, tmp_path):
    write_rows(tmp_path, random.Random(1).sample(STORIES, len(STORIES)))
    assert batch("in.jsonl", "-o", "out.jsonl", *SEED).code == 0
    assert texts(records(tmp_path)) == undisturbed


def test_a_pipe_gives_the_same_records(undisturbed, gambler, tmp_path):
    stdin = b"".join(json.dumps(row).encode() + b"\n" for row in STORIES[:3])
    arguments = ("batch", "-", "-o", "-", *SEED)
    outcome = run_cli(*arguments, home=tmp_path, stdin=stdin, METAL_GEN_MODEL=gambler)
    assert outcome.code == 0
    found = texts([json.loads(line) for line in outcome.stdout.splitlines()])
    assert found == {row["id"]: undisturbed[row["id"]] for row in STORIES[:3]}


def test_a_row_alone_is_what_generate_says(batch, run_here, tmp_path):
    write_rows(tmp_path, [{"prompt": "Tell me a story about a fox.", "seed": 3, "max_tokens": 20}])
    batch("in.jsonl", "-o", "out.jsonl")
    arguments = ("-p", "Tell me a story about a fox.", "--seed", "3", "-n", "20", "--no-newline")
    assert records(tmp_path)[0]["text"].encode() == run_here("generate", *arguments).stdout


@pytest.mark.parametrize("slots", ["1", "8"])
def test_texts_do_not_depend_on_how_many_are_generated_at_once(batch, undisturbed, tmp_path, slots):
    write_rows(tmp_path, random.Random(2).sample(STORIES, len(STORIES)))
    arguments = ("--batch-size", slots, "--fsync-interval", "0", *SEED)
    assert batch("in.jsonl", "-o", "out.jsonl", *arguments).code == 0
    assert texts(records(tmp_path)) == undisturbed


def test_the_order_of_rows_is_kept_when_asked(batch, tmp_path):
    rows = [{"prompt": f"Story {number}", "max_tokens": 1 + 7 * number % 23} for number in range(20)]
    write_rows(tmp_path, [*rows[:5], b"not json", *rows[5:]])
    arguments = ("in.jsonl", "-o", "out.jsonl", "--ordered")
    assert batch(*arguments).code == 7
    lines = [record["error"]["line"] if "error" in record else record["id"] for record in records(tmp_path)]
    assert lines == list(range(1, 22))
    outcome = batch(*arguments[:-1], "--resume")
    assert outcome.code == 2
    assert "started with ordered True" in outcome.stderr


@pytest.mark.parametrize("turn", [*(pytest.param(turn, marks=pytest.mark.release) for turn in (0, 1)), 2])
def test_killed_at_any_moment_it_resumes_to_the_same_texts(undisturbed_stories, tmp_path, turn):
    arguments = ("--resume", "--batch-size", str(turn + 1), *SEED)
    write_rows(tmp_path, STORIES)
    chance = random.Random(turn)
    output = tmp_path / "out.jsonl"
    for _ in range(3):
        process = start_cli("batch", "in.jsonl", "-o", "out.jsonl", *arguments, home=tmp_path)
        enough = size_of(output) + chance.randrange(1, 150)
        while process.poll() is None and size_of(output) < enough:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start_cli("batch", "in.jsonl", "-o", "out.jsonl", *arguments, home=tmp_path)
    process.communicate()
    assert process.returncode == 0
    assert texts(records(tmp_path)) == undisturbed_stories


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_it_and_what_is_done_stays(batch, gambler, tmp_path, stop, code):
    write_rows(tmp_path, [{"prompt": f"Story {number}"} for number in range(100)])
    arguments = ("in.jsonl", "-o", "out.jsonl", "-n", "8")
    process = start_cli("batch", *arguments, home=tmp_path, METAL_GEN_MODEL=gambler)
    output = tmp_path / "out.jsonl"
    while process.poll() is None and (not output.exists() or output.stat().st_size < 200):
        time.sleep(0.01)
    process.send_signal(stop)
    _, stderr = process.communicate()
    assert process.returncode == code
    assert re.search(rb"stopped: \d+ rows done, 0 failed", stderr)
    done = records(tmp_path)
    assert done
    outcome = batch(*arguments, "--resume")
    assert outcome.code == 0
    assert records(tmp_path)[: len(done)] == done
    assert len(texts(records(tmp_path))) == 100


def test_a_second_run_on_the_same_output_names_the_holder(batch, gambler, tmp_path):
    write_rows(tmp_path, [{"prompt": f"Story {number}"} for number in range(500)])
    first = start_cli("batch", "in.jsonl", "-o", "out.jsonl", home=tmp_path, METAL_GEN_MODEL=gambler)
    while not (tmp_path / "out.jsonl").exists():
        time.sleep(0.01)
    second = batch("in.jsonl", "-o", "out.jsonl", "--resume")
    first.kill()
    first.communicate()
    assert second.code == 8
    assert str(first.pid) in second.stderr


@pytest.mark.quick
def test_bad_rows_become_records_and_the_rest_continues(batch, tmp_path):
    bad = [
        b"not json",
        b'{"id": 1}',
        b'{"id": 0, "prompt": "again"}',
        b'{"id": 2, "prompt": "x", "top_p": 7}',
    ]
    bad += [json.dumps({"id": 3, "prompt": "x " * 5000}).encode(), b'{"id": 4, "prompt": "\xff"}']
    write_rows(tmp_path, [{"id": 0, "prompt": "hi"}, *bad, {"id": 9, "prompt": "hi"}])
    outcome = batch("in.jsonl", "-o", "out.jsonl", "-n", "2")
    assert outcome.code == 7
    assert "2 rows done, 6 failed" in outcome.stderr
    found = records(tmp_path)
    assert [record["error"]["line"] for record in found if "error" in record] == [2, 3, 4, 5, 6, 7]
    assert [record["id"] for record in found if "text" in record] == [0, 9]


def test_strict_stops_at_the_first_bad_row(batch, tmp_path):
    write_rows(tmp_path, [{"prompt": "hi"}, {"id": "b"}, {"prompt": "hi"}])
    outcome = batch("in.jsonl", "-o", "out.jsonl", "-n", "2", "--strict")
    assert outcome.code == 7
    assert "row 2 failed" in outcome.stderr
    assert records(tmp_path)[-1]["error"]["line"] == 2
    batch("in.jsonl", "-o", "out.jsonl", "-n", "2", "--resume")
    assert sorted(str(record["id"]) for record in records(tmp_path)) == ["1", "3", "b"]


def test_failed_rows_are_run_again_when_asked(batch, tmp_path):
    write_rows(tmp_path, [{"id": 1, "prompt": "hi"}, {"id": 2}])
    assert batch("in.jsonl", "-o", "out.jsonl", "-n", "2").code == 7
    again = ("in.jsonl", "-o", "out.jsonl", "-n", "2", "--resume")
    kept = batch(*again)
    assert (kept.code, "0 failed, 1 done before, 1 failed before" in kept.stderr) == (7, True)
    retried = batch(*again, "--retry-failed")
    assert (retried.code, "1 failed, 1 done before" in retried.stderr) == (7, True)


@pytest.mark.quick
def test_check_needs_no_output_and_says_which_lines_are_bad(batch, tmp_path):
    write_rows(tmp_path, [{"prompt": "hi"}, {"prompt": ""}])
    outcome = batch("in.jsonl", "--check")
    assert (outcome.code, outcome.stdout) == (7, b"")
    assert "line 2: " in outcome.stderr
    assert "1 row can be run, 1 cannot" in outcome.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(("in", "out"))) == [
        "in.jsonl"
    ]


def test_check_says_a_reason_once_and_every_row_when_asked(batch, tmp_path):
    write_rows(tmp_path, [{"promt": "hi"}] * 200)
    outcome = batch("in.jsonl", "--check")
    assert (outcome.code, outcome.stderr.count("line ")) == (7, 1)
    assert "line 1: there is neither a prompt nor messages" in outcome.stderr
    assert "; 199 more rows like it: lines 2, 3, 4, ...\n" in outcome.stderr
    assert "0 rows can be run, 200 cannot" in outcome.stderr
    every = batch("in.jsonl", "--check", "-v")
    assert (every.code, every.stderr.count(": there is neither a prompt")) == (7, 200)


@pytest.mark.quick
def test_a_field_holds_the_prompt_and_the_others_are_handed_on(batch, tmp_path):
    write_rows(tmp_path, [{"id": 5, "question": "hi", "topic": {"a": [1]}, "temperature": "mild"}])
    arguments = ("in.jsonl", "-o", "out.jsonl", "-n", "2", "--field", "question")
    assert batch(*arguments).code == 0
    record = records(tmp_path)[0]
    assert (record["id"], record["topic"], record["temperature"]) == (5, {"a": [1]}, "mild")


def test_the_summary_counts(gambler, tmp_path):
    write_rows(tmp_path, [{"prompt": "hi"}, {"id": 1}])
    arguments = ("batch", "in.jsonl", "-o", "out.jsonl", "-n", "2", "--summary", "sum.json")
    run_cli(*arguments, home=tmp_path, METAL_GEN_MODEL=gambler)
    summary = json.loads((tmp_path / "sum.json").read_text())
    assert (summary["done"], summary["failed"], summary["completion_tokens"]) == (1, 1, 2)
    assert isinstance(summary["seed"], int)
    assert 0 < summary["peak_memory_bytes"] <= summary["planned_memory_bytes"]


def test_what_changed_is_named_when_going_on(batch, tmp_path):
    write_rows(tmp_path, [{"prompt": "hi"}])
    assert batch("in.jsonl", "-o", "out.jsonl", "-n", "2").code == 0
    changed = batch("in.jsonl", "-o", "out.jsonl", "-n", "3", "--resume")
    assert (changed.code, "max_tokens" in changed.stderr) == (2, True)
    write_rows(tmp_path, [{"prompt": "ho"}])
    changed = batch("in.jsonl", "-o", "out.jsonl", "-n", "2", "--resume")
    assert (
        changed.code,
        "in.jsonl has changed since out.jsonl was started: line 1 differs" in changed.stderr,
    ) == (
        2,
        True,
    )


def test_rows_that_were_added_are_run_when_going_on(batch, undisturbed, tmp_path):
    arguments = ("in.jsonl", "-o", "out.jsonl", "--resume", *SEED)
    for count in (2, 2, 4):
        write_rows(tmp_path, STORIES[:count])
        assert batch(*arguments).code == 0
    assert texts(records(tmp_path)) == {row["id"]: undisturbed[row["id"]] for row in STORIES[:4]}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in.jsonl",), "there is no output"),
        (("none.jsonl", "-o", "out.jsonl"), "the input none.jsonl cannot be read"),
        ((".", "-o", "out.jsonl"), "hint: name a file of rows; `metal-gen help batch`"),
        (("in.jsonl", "-o", "there.jsonl"), "already exists"),
        (("in.jsonl", "-o", "no/out.jsonl"), "no"),
        (("in.jsonl", "-o", "out.jsonl", "--retry-failed"), "--retry-failed needs --resume"),
        (("in.jsonl", "-o", "-", "--resume"), "--resume contradicts -o -"),
        (("in.jsonl", "-o", "in.jsonl", "--overwrite"), "the output in.jsonl is the input"),
        (("in.jsonl", "-o", "out.jsonl", "--summary", "in.jsonl"), "the summary in.jsonl is the input"),
        (
            ("in.jsonl", "-o", "out.jsonl", "--summary", "./out.jsonl"),
            "the summary ./out.jsonl is the output",
        ),
        (("in.jsonl", "-o", "out.jsonl", "--summary", "no/s.json"), "--summary no/s.json cannot be written"),
        (("in.jsonl", "-o", "out.jsonl", "--check"), "--output contradicts --check"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused(batch, tmp_path, arguments, message):
    write_rows(tmp_path, [{"prompt": "hi"}])
    write_rows(tmp_path, [{"id": 1, "text": ""}], "there.jsonl")
    outcome = batch(*arguments)
    assert (outcome.code, outcome.stdout) == (2, b"")
    assert message in outcome.stderr
    assert (tmp_path / "in.jsonl").read_bytes() == b'{"prompt": "hi"}\n'
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "redirect", "message"),
    [
        (("-", "-o", "in.jsonl", "--overwrite"), "<in.jsonl", "the output in.jsonl is the input"),
        (("in.jsonl", "-o", "-"), ">>in.jsonl", "the output /dev/stdout is the input"),
    ],
)
def test_an_input_is_not_written_over_by_way_of_a_shell(tmp_path, arguments, redirect, message):
    write_rows(tmp_path, [{"prompt": "hi"}])
    outcome = run_cli("batch", *arguments, home=tmp_path, redirect=redirect)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert (tmp_path / "in.jsonl").read_bytes() == b'{"prompt": "hi"}\n'


def test_an_input_that_is_a_pipe_is_read_once(gambler, tmp_path):
    stdin = b'{"prompt": "hi"}\n{"prompt": "ho"}\n'
    arguments = ("batch", "/dev/stdin", "-o", "out.jsonl", "-n", "2")
    outcome = run_cli(*arguments, home=tmp_path, stdin=stdin, METAL_GEN_MODEL=gambler)
    assert outcome.code == 0
    assert len(records(tmp_path)) == 2


@pytest.mark.quick
def test_a_checkpoint_without_a_tokenizer_fails_no_row(batch, gambler, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(gambler, folder)
    (folder / "tokenizer.json").unlink()
    write_rows(tmp_path, [{"prompt": "hi"}])
    outcome = batch("in.jsonl", "-o", "out.jsonl", "-m", "./model")
    assert outcome.code == 5
    assert "has no tokenizer.json" in outcome.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_a_chat_template_that_changed_is_another_model(batch, gambler, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(gambler, folder)
    write_rows(tmp_path, [{"prompt": "hi"}])
    arguments = ("in.jsonl", "-o", "out.jsonl", "-n", "2", "-m", "./model", "--resume")
    assert batch(*arguments).code == 0
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    changed = batch(*arguments)
    assert (changed.code, "the model's files differ" in changed.stderr) == (2, True)


def test_each_notice_about_the_prompts_is_shown_once(batch, gambler, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(gambler, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    write_rows(tmp_path, [{"prompt": "hi"}, {"prompt": "ho"}])
    outcome = batch("in.jsonl", "-o", "out.jsonl", "-n", "2", "-m", "./model")
    assert outcome.code == 0
    assert outcome.stderr.count("this checkpoint has no chat template") == 1


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("-o", "missing/out.jsonl"),
            2,
            "the output missing/out.jsonl cannot be written: there is no folder missing",
        ),
        (("-o", "out.jsonl", "--batch-size", "0"), 2, "--batch-size must be a whole number of at least 1"),
        (("-o", "out.jsonl", "--batch-size", "99999999"), 6, "hint: set batch_size under [cache] to at most"),
        (
            ("-o", "out.jsonl", "--fsync-interval", "nan"),
            2,
            "must be at most 86400, not nan",
        ),
        (("-o", "out.jsonl", "--fsync-interval", "inf"), 2, "--fsync-interval must be at most"),
        (("-o", "out.jsonl", "--fsync-interval", "-1"), 2, "--fsync-interval must be at least 0, not -1.0"),
        (
            ("-o", "out.jsonl", "--resume", "--retry-failed", "--ordered"),
            2,
            "--retry-failed contradicts --ordered",
        ),
    ],
)
def test_what_slots_and_outputs_cannot_be_is_refused(batch, tmp_path, arguments, code, message):
    write_rows(tmp_path, STORIES[:1])
    outcome = batch("in.jsonl", *arguments)
    assert (outcome.code, message in outcome.stderr) == (code, True), outcome.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_a_full_disk_leaves_whole_records_to_resume(batch, gambler, undisturbed, tmp_path):
    write_rows(tmp_path, STORIES)
    limit = (1500, resource.RLIM_INFINITY)
    full = subprocess.run(
        command("batch", "in.jsonl", "-o", "out.jsonl", *SEED),
        cwd=tmp_path,
        env=clean_environment(tmp_path, METAL_GEN_MODEL=gambler),
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        check=False,
    )
    assert full.returncode == 1
    assert b"the output out.jsonl cannot be written: File too large" in full.stderr
    assert 0 < len(records(tmp_path)) < len(STORIES)
    assert batch("in.jsonl", "-o", "out.jsonl", "--resume", *SEED).code == 0
    assert texts(records(tmp_path)) == undisturbed


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a terminal is at its end")
def test_an_input_that_fails_while_it_is_read_loses_no_row_that_came_before(gambler, tmp_path):
    # Linux reports this for one end of a terminal when the other has been closed.
    reading, writing = pty.openpty()
    os.write(writing, b"".join(json.dumps(row).encode() + b"\n" for row in STORIES[:3]))
    os.close(writing)
    arguments = ("batch", "-", "-o", "out.jsonl", "-n", "2")
    process = start_cli(*arguments, home=tmp_path, stdin=reading, METAL_GEN_MODEL=gambler)
    os.close(reading)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"the input cannot be read after line 3: Input/output error" in stderr
    write_rows(tmp_path, STORIES)
    stdin = (tmp_path / "in.jsonl").read_bytes()
    resumed = run_cli(*arguments, "--resume", home=tmp_path, stdin=stdin, METAL_GEN_MODEL=gambler)
    assert resumed.code == 0
    assert len(texts(records(tmp_path))) == len(STORIES)


def test_an_input_that_ends_in_a_line_fails_that_row_alone(batch, tmp_path):
    write_rows(tmp_path, STORIES[:3])
    whole = (tmp_path / "in.jsonl").read_bytes()
    (tmp_path / "in.jsonl").write_bytes(whole[:-20])
    assert batch("in.jsonl", "-o", "out.jsonl", "-n", "2").code == 7
    found = records(tmp_path)
    assert [record["error"]["line"] for record in found if "error" in record] == [3]
    assert len(found) == 3


def test_rows_of_a_later_run_see_the_same_date(batch, tmp_path):
    """In a template, the time is that of the run's beginning."""
    template = "{{ raise_exception(strftime_now('%Y-%m-%d')) }}"
    write_text_checkpoint(tmp_path / "model", chat_template=template)
    arguments = ("in.jsonl", "-o", "out.jsonl", "--model", "./model", "--resume")
    write_rows(tmp_path, [{"prompt": "a"}])
    assert batch(*arguments).code == 7
    run_file = tmp_path / ".out.jsonl.run.json"
    run = json.loads(run_file.read_text())
    run["run"]["moment"] = "2001-02-03T04:05:06"
    run_file.write_text(json.dumps(run))
    write_rows(tmp_path, [{"prompt": "a"}, {"prompt": "b"}])
    assert batch(*arguments).code == 7
    first, second = (json.dumps(record) for record in records(tmp_path))
    assert "2001-02-03" not in first
    assert "2001-02-03" in second
