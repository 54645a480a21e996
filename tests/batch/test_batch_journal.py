"""Tests the journal: always whole lines, one run at a time, and only the same run continues it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_process import clean_environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from output_records import BAD, GOOD, RUN, joined, names, write

from metal_gen.batch.output import record_file, repair
from metal_gen.batch.output.journal import Journal, StreamJournal
from metal_gen.batch.output.run_file import run_path
from metal_gen.batch.records import encode_record
from metal_gen.checkpoint.bundled import BUNDLED_NAME
from metal_gen.errors import ExitCode, MetalGenError, OutputHeldError, UsageError

HOLD = """
import sys
from pathlib import Path
from metal_gen.batch.output.journal import Journal
journal = Journal.resume(Path(sys.argv[1]), {run!r})
journal.append({{"id": "first", "text": "x"}})
print("held", flush=True)
sys.stdin.read()
"""
TRY = """
import sys
from pathlib import Path
from metal_gen.batch.output.journal import Journal
from metal_gen.errors import MetalGenError
try:
    Journal.resume(Path(sys.argv[1]), {run!r})
except MetalGenError as error:
    print(error.message)
    raise SystemExit(error.exit_code)
"""
POUR = """
import sys
from itertools import count
from pathlib import Path
from metal_gen.batch.output.journal import Journal
with Journal.create(Path(sys.argv[1]), {run!r}) as journal:
    for number in count():
        journal.append({{"id": number, "text": "x" * 3000}})
        if number == 50:
            print("poured", flush=True)
"""
FILL = """
import resource, sys
from pathlib import Path
from metal_gen.batch.output.journal import Journal
from metal_gen.errors import MetalGenError
with Journal.create(Path(sys.argv[1]), {run!r}) as journal:
    journal.append({{"id": 1, "text": "fits"}})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        journal.append({{"id": 2, "text": "x" * 5000}})
    except MetalGenError as error:
        print(error.message)
    journal.append({{"id": 3, "text": "fits too"}})
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


def script(code, path, **options):
    options = {"stdout": subprocess.PIPE, "text": True, **options}
    arguments = [sys.executable, "-c", code.format(run=RUN), path]
    return subprocess.Popen(arguments, env=clean_environment(path.parent), **options)


# Beginning


def test_records_are_lines_and_are_there_at_once(path):
    with Journal.create(path, RUN) as journal:
        assert path.read_bytes() == b""
        for count, record in enumerate(GOOD, 1):
            journal.append(record)
            assert path.read_bytes() == joined(GOOD[:count])
    assert names(path) == [".out.jsonl.run.json", "out.jsonl"]


def test_what_is_there_is_not_overwritten(path):
    write(path, GOOD)
    with pytest.raises(UsageError, match="already exists") as raised:
        Journal.create(path, RUN)
    assert "--resume" in raised.value.hint
    assert "--overwrite" in raised.value.hint
    assert path.read_bytes() == joined(GOOD)


def test_what_is_there_is_overwritten_where_that_is_asked_for(path):
    write(path, GOOD)
    write(path, GOOD[:1], {**RUN, "model": "other"}, overwrite=True)
    assert path.read_bytes() == joined(GOOD[:1])
    with pytest.raises(UsageError):
        Journal.resume(path, RUN)


def test_an_empty_file_is_nothing_to_lose(path):
    path.touch()
    write(path, GOOD)
    assert path.read_bytes() == joined(GOOD)


def test_a_seed_that_is_not_given_is_chosen_once(path):
    free = {**RUN, "seed": None}
    with Journal.create(path, free) as journal:
        seed = journal.seed
        journal.append(GOOD[0])
    with Journal.resume(path, free) as journal:
        assert journal.seed == seed
    with Journal.resume(path, {**RUN, "seed": seed}) as journal:
        assert journal.seed == seed
    with pytest.raises(UsageError, match="started with seed"):
        Journal.resume(path, {**RUN, "seed": seed + 1})


def test_a_resumed_run_keeps_the_moment_of_its_beginning(path):
    """Only if its rows depend on the time."""
    timed = {**RUN, "moment": None}
    with Journal.create(path, timed) as journal:
        moment = journal.moment
        journal.append(GOOD[0])
    run_file = run_path(path)
    run_file.write_text(run_file.read_text().replace(moment.isoformat(), "2001-02-03T04:05:06"))
    for _ in range(2):
        with Journal.resume(path, timed) as journal:
            assert journal.moment.isoformat() == "2001-02-03T04:05:06"
    run_file.write_text(run_file.read_text().replace("2001-02-03", "yesterday"))
    with pytest.raises(UsageError, match="damaged"):
        Journal.resume(path, timed)
    other = path.with_name("other.jsonl")
    with Journal.create(other, RUN) as journal:
        assert journal.moment is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("missing/out.jsonl", "there is no folder"),
        ("file/out.jsonl", "Not a directory"),
        ("folder", "is a folder"),
        ("a\0b", "null"),
        ("n" * 250, "File name too long"),
    ],
    ids=["missing", "file", "folder", "null", "long"],
)
@pytest.mark.parametrize("begin", [Journal.create, Journal.resume])
def test_a_place_that_cannot_be_written(tmp_path, name, part, begin):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="the output") as raised:
        begin(tmp_path / name, RUN)
    assert part in raised.value.message
    assert not list(tmp_path.glob(".*.lock"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_and_a_file_that_are_read_only(path):
    path.parent.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        Journal.create(path, RUN)
    path.parent.chmod(0o700)
    write(path, GOOD)
    path.chmod(0o400)
    with pytest.raises(UsageError, match="Permission denied"):
        Journal.resume(path, RUN)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "FIFO"])
def test_what_is_in_place_of_the_run_file_is_named(path, make):
    make(run_path(path))
    with pytest.raises(UsageError, match=r"the run file .*\.out\.jsonl\.run\.json cannot be written"):
        Journal.create(path, RUN)
    assert not path.exists()
    path.write_bytes(joined(GOOD))
    with pytest.raises(UsageError, match=r"the run file .*\.out\.jsonl\.run\.json cannot be read"):
        Journal.resume(path, RUN)
    with pytest.raises(UsageError, match=r"the run file .* cannot be written"):
        Journal.create(path, RUN, overwrite=True)
    assert path.read_bytes() == joined(GOOD)


def test_a_device_cannot_be_an_output(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"pipe is not a file(\n|$)"):
        Journal.create(tmp_path / "pipe", RUN)


def test_of_a_link_it_is_the_target_that_is_written(path):
    (path.parent / "there").mkdir()
    path.symlink_to("there/real.jsonl")
    write(path, GOOD)
    assert path.is_symlink()
    assert (path.parent / "there" / "real.jsonl").read_bytes() == joined(GOOD)
    with Journal.resume(path, RUN) as journal:
        assert journal.found.done == len(GOOD)


# Going on


def test_going_on_knows_what_is_finished(path):
    write(path, [*GOOD, BAD])
    with Journal.resume(path, RUN) as journal:
        assert (journal.found.done, journal.found.failed, journal.found.damaged) == (4, 1, 0)
        assert all(f"int:{number}" in journal.finished for number in (0, 1, 2, 3, 9))
        assert len(journal.finished) == 5
        journal.append({"id": "new", "text": ""})
    assert path.read_bytes() == joined([*GOOD, BAD, {"id": "new", "text": ""}])


@pytest.mark.parametrize("is_there", [True, False])
def test_going_on_with_nothing_begins(path, is_there):
    if is_there:
        path.touch()
    with Journal.resume(path, RUN) as journal:
        assert len(journal.finished) == 0
        journal.append(GOOD[0])
    with Journal.resume(path, RUN) as journal:
        assert journal.found.done == 1


@pytest.mark.parametrize(
    ("run", "part"),
    [
        ({**RUN, "temperature": "0.7"}, "with temperature 0.5, but this run has temperature 0.7"),
        ({**RUN, "model": BUNDLED_NAME}, "started with model tiny, but this run has the bundled model"),
        ({**RUN, "added": 1}, "started with no added, but this run has added 1"),
        ({"model": "tiny", "seed": 3}, "with temperature 0.5, but this run has no temperature"),
    ],
    ids=["other", "none", "more", "less"],
)
def test_another_run_does_not_continue(path, run, part):
    write(path, GOOD)
    path.write_bytes(path.read_bytes() + b"torn")
    with pytest.raises(UsageError) as raised:
        Journal.resume(path, run)
    assert part in raised.value.message
    assert path.read_bytes() == joined(GOOD) + b"torn"
    with Journal.resume(path, RUN):
        """The lock was given up."""


def run_document(*, seed=b"3", model=b'"tiny"', input=b"null"):
    return b'{"format": 2, "run": {"model": %s, "temperature": "0.5", "seed": %s}, "input": %s}' % (
        model,
        seed,
        input,
    )


@pytest.mark.parametrize(
    "content",
    [
        *(None, b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"format": 2}', b'{"format": 3}'),
        *(run_document(seed=seed) for seed in (b"Infinity", b"1e999", b"null", b'"3"', b"true", b"9" * 5000)),
        *(run_document(model=model) for model in (b"[]", b"1.5", b"NaN")),
        *(
            run_document(input=mark)
            for mark in (b"1", b"{}", b'{"lines": 1, "group_lines": 1, "digests": ""}')
        ),
        run_document(input=b'{"lines": -5, "group_lines": 10, "digests": ""}'),
        run_document(input=b'{"lines": 1, "group_lines": 0, "digests": "0000000000000000"}'),
        run_document(input=b'{"lines": 1, "group_lines": 1, "digests": "zzzzzzzzzzzzzzzz"}'),
    ],
    ids=lambda content: repr(content)[:90],
)
def test_an_output_of_an_unknown_run(path, content):
    write(path, GOOD)
    run_path(path).unlink()
    if content is not None:
        run_path(path).write_bytes(content)
    with pytest.raises(UsageError, match=r"the run that made .* is unknown"):
        Journal.resume(path, RUN)
    assert path.read_bytes() == joined(GOOD)


def test_an_output_of_an_older_version(path):
    write(path, GOOD)
    run_path(path).write_text(json.dumps({"format": 1, "run": {**RUN, "input": "0" * 64}}))
    with pytest.raises(UsageError, match="started by an older metal-gen"):
        Journal.resume(path, RUN)


@pytest.mark.parametrize("name", ["checkpoint", "adapters"])
def test_changed_files_of_a_model_are_reported_without_digests(path, name):
    write(path, GOOD, {**RUN, name: "0" * 64})
    with pytest.raises(UsageError, match="differ from those") as raised:
        Journal.resume(path, {**RUN, name: "f" * 64})
    assert not re.search("0{8}|f{8}", raised.value.message)


def test_a_renamed_output_resumes_if_its_run_file_is_renamed_too(path):
    write(path, GOOD)
    other = path.rename(path.with_name("other.jsonl"))
    with pytest.raises(UsageError, match=r"there is no .*/\.other\.jsonl\.run\.json") as raised:
        Journal.resume(other, RUN)
    assert "rename the .run.json file" in raised.value.hint
    run_path(path).rename(run_path(other))
    with Journal.resume(other, RUN) as journal:
        assert journal.found.done == len(GOOD)


@pytest.mark.parametrize("piece_bytes", [5, 2**20])
def test_an_output_that_ends_anywhere_continues_after_its_last_whole_record(path, piece_bytes, monkeypatch):
    monkeypatch.setattr(repair, "PIECE_BYTES", piece_bytes)
    write(path, GOOD)
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == 0x0A]
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with Journal.resume(path, RUN) as journal:
            kept = sum(end <= length for end in ends)
            assert journal.found.done == kept
            assert journal.found.damaged == (length not in ends)
            for record in GOOD[kept:]:
                journal.append(record)
        assert path.read_bytes() == whole


DAMAGE = [b"\n", b"{\n", b"\0\0\0\0\n", b"null\n", b'{"id": 1}\n', b"\xff\n", b"[" * 100_000 + b"\n"]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: repr(damage[:12]))
@pytest.mark.parametrize("place", [0, 2, 4])
def test_lines_that_are_not_records_are_removed(path, damage, place):
    write(path, GOOD)
    path.chmod(0o640)
    path.write_bytes(joined(GOOD[:place]) + damage + joined(GOOD[place:]))
    with Journal.resume(path, RUN) as journal:
        assert (journal.found.done, journal.found.damaged) == (4, 1)
        journal.append(BAD)
    assert path.read_bytes() == joined([*GOOD, BAD])
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(path) == [".out.jsonl.run.json", "out.jsonl"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["done", "failed", "damaged"]), max_size=8), st.booleans(), st.booleans())
def test_any_mixture_of_lines(path, kinds, retry_failed, is_torn):
    lines = {
        "done": [encode_record({"id": n, "text": "x"}) for n in range(len(kinds))],
        "failed": [encode_record({**BAD, "id": n}) for n in range(len(kinds))],
        "damaged": [b"{%d\n" % n for n in range(len(kinds))],
    }
    kept = ["done"] if retry_failed else ["done", "failed"]
    write(path, [], overwrite=True)
    path.write_bytes(b"".join(lines[kind][n] for n, kind in enumerate(kinds)) + b'{"id"' * is_torn)
    with Journal.resume(path, RUN, retry_failed=retry_failed) as journal:
        found = journal.found
        assert found.done == kinds.count("done")
        assert (found.retried if retry_failed else found.failed) == kinds.count("failed")
        assert [f"int:{n}" in journal.finished for n in range(len(kinds))] == [kind in kept for kind in kinds]
    assert path.read_bytes() == b"".join(lines[kind][n] for n, kind in enumerate(kinds) if kind in kept)


# Trouble


@pytest.mark.parametrize("kept", [0, 1, 7, len(encode_record(GOOD[1])) - 1, len(encode_record(GOOD[1]))])
def test_a_signal_at_the_end_of_a_write_leaves_a_whole_record_or_none(path, kept, monkeypatch):
    whole = len(encode_record(GOOD[1]))

    def write(descriptor, line):
        os.write(descriptor, line[:kept])
        raise KeyboardInterrupt

    with Journal.create(path, RUN) as journal:
        journal.append(GOOD[0])
        interrupted = SimpleNamespace(write=write, ftruncate=os.ftruncate, path=os.path)
        monkeypatch.setattr(record_file, "os", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append(GOOD[1])
        monkeypatch.undo()
        journal.append(GOOD[2])
    assert path.read_bytes() == joined([GOOD[0], *([GOOD[1]] if kept == whole else []), GOOD[2]])


def test_a_full_disk_leaves_whole_records(path):
    process = script(FILL, path)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said == f"the output {path} cannot be written: File too large\n"
    assert path.read_bytes() == joined([{"id": 1, "text": "fits"}, {"id": 3, "text": "fits too"}])


def test_records_are_synced_no_more_often_than_asked_for(path, monkeypatch):
    synced = []
    with Journal.create(path, RUN, fsync_interval_s=1000.0) as journal:
        monkeypatch.setattr(os, "fsync", synced.append)
        for record in GOOD:
            journal.append(record)
        assert synced == []
    assert len(synced) == 1
    with Journal.resume(path, RUN, fsync_interval_s=0.0) as journal:
        synced.clear()
        for record in GOOD:
            journal.append(record)
        assert len(synced) == 4


def fail_without(path):
    path.unlink()
    raise ZeroDivisionError


def test_a_failure_within_is_not_hidden_by_one_at_the_end(path):
    with pytest.raises(ZeroDivisionError), Journal.create(path, RUN):
        fail_without(path)
    with Journal.create(path, RUN):
        """The lock was given up."""


def test_closing_twice_is_closing_once(path):
    journal = Journal.create(path, RUN)
    journal.close()
    journal.close()


# Two runs


def test_a_second_run_in_the_same_process_is_refused(path):
    with Journal.create(path, RUN):
        for begin in (Journal.create, Journal.resume):
            with pytest.raises(OutputHeldError, match=f"process {os.getpid()} on "):
                begin(path, RUN)
        with Journal.create(path.parent / "other.jsonl", RUN):
            """Another output is free."""
    with Journal.resume(path, RUN):
        """So is this one now."""


def test_a_second_process_is_refused_until_the_first_is_killed(path):
    holder = script(HOLD, path, stdin=subprocess.PIPE)
    assert holder.stdout.readline() == "held\n"
    second = script(TRY, path)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == ExitCode.OUTPUT_HELD == 8
    assert f"the output {path} is being written by another run: process {holder.pid} on " in said
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=60)
    with Journal.resume(path, RUN) as journal:
        assert "str:first" in journal.finished
    assert names(path) == [".out.jsonl.run.json", "out.jsonl"]


def test_a_process_that_is_killed_leaves_whole_records_in_order(path):
    process = script(POUR, path)
    assert process.stdout.readline() == "poured\n"
    process.kill()
    process.communicate(timeout=60)
    *lines, rest = path.read_bytes().split(b"\n")
    assert rest == b""
    assert [json.loads(line)["id"] for line in lines] == list(range(len(lines)))
    with Journal.resume(path, RUN) as journal:
        assert (journal.found.done, journal.found.damaged) == (len(lines), 0)


# Streams


class Stream:
    def __init__(self, error=None):
        self.content, self.flushed, self.error = b"", b"", error

    def write(self, line):
        if self.error:
            raise self.error
        self.content += line

    def flush(self):
        self.flushed = self.content


def test_a_stream_gets_each_record_at_once():
    stream = Stream()
    with StreamJournal(stream, 1) as journal:
        assert "int:1" not in journal.finished
        for record in GOOD:
            journal.append(record)
            assert stream.flushed.endswith(encode_record(record))
        journal.sync()
    assert stream.flushed == joined(GOOD)


def test_a_stream_that_cannot_be_written():
    with (
        StreamJournal(Stream(BrokenPipeError(32, "Broken pipe")), 1) as journal,
        pytest.raises(BrokenPipeError),
    ):
        journal.append(GOOD[0])
    full = Stream(OSError(28, "No space left on device"))
    with StreamJournal(full, 1) as journal, pytest.raises(MetalGenError, match="No space left on device"):
        journal.append(GOOD[0])


def test_only_json_is_written(path):
    with Journal.create(path, RUN) as journal, pytest.raises(ValueError, match="JSON"):
        journal.append({"id": 1, "text": float("nan")})
    assert json.loads(run_path(path).read_text())["run"] == RUN
    assert path.read_bytes() == b""
