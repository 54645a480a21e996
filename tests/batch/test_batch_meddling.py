"""Tests other programs that change an output while it is written: detected, nothing lost or repeated."""

import errno
import os

import pytest
from cli_process import start_cli
from output_records import BAD, GOOD, RUN, joined, names, write

from metal_gen.batch.output import record_file
from metal_gen.batch.output.journal import Journal
from metal_gen.batch.output.run_file import run_path
from metal_gen.errors import ExitCode, MetalGenError, OutputHeldError, UsageError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


def append_half(path):
    with path.open("ab") as file:
        file.write(b'{"id": "torn')


def replace(path):
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def link_instead(path):
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


MEDDLING = {
    "cut": lambda path: os.truncate(path, 20),
    "emptied": lambda path: os.truncate(path, 0),
    "grown": append_half,
    "removed": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("moved")),
    "replaced": replace,
    "linked": link_instead,
}


@pytest.mark.parametrize("meddle", MEDDLING.values(), ids=MEDDLING)
def test_meddling_is_noticed_by_the_next_record(path, meddle):
    journal = Journal.create(path, RUN, fsync_interval_s=1000)
    journal.append(GOOD[0])
    journal.append(GOOD[1])
    meddle(path)
    left = path.read_bytes() if path.exists() else None
    with pytest.raises(MetalGenError, match=r"was (changed|lost)") as raised:
        journal.append(GOOD[2])
    assert "--resume" in raised.value.hint
    assert (path.read_bytes() if path.exists() else None) == left
    with pytest.raises(MetalGenError):
        journal.close()


@pytest.mark.parametrize("meddle", MEDDLING.values(), ids=MEDDLING)
def test_meddling_is_noticed_at_the_end(path, meddle):
    journal = Journal.create(path, RUN, fsync_interval_s=1000)
    for record in GOOD:
        journal.append(record)
    meddle(path)
    with pytest.raises(MetalGenError, match=r"was (changed|lost)"):
        journal.close()


@pytest.mark.parametrize("kind", sorted(MEDDLING.keys() - {"linked"}))
def test_after_meddling_the_rows_without_a_record_are_run_again(path, kind):
    journal = Journal.create(path, RUN)
    for record in GOOD:
        journal.append(record)
    MEDDLING[kind](path)
    with pytest.raises(MetalGenError):
        journal.close()
    with Journal.resume(path, RUN) as journal:
        for record in GOOD:
            if f"int:{record['id']}" not in journal.finished:
                journal.append(record)
    assert sorted(path.read_bytes().splitlines()) == sorted(joined(GOOD).splitlines())


def test_what_comes_between_the_look_and_the_write_is_noticed(path, monkeypatch):
    write_all = os.write

    def write_after_another(descriptor, line):
        append_half(path)
        return write_all(descriptor, line)

    journal = Journal.create(path, RUN)
    journal.append(GOOD[0])
    monkeypatch.setattr(record_file.os, "write", write_after_another)
    with pytest.raises(MetalGenError, match="was changed"):
        journal.append(GOOD[1])


def test_records_that_are_there_twice_are_taken_out(path):
    write(path, GOOD)
    path.write_bytes(joined([*GOOD, BAD, GOOD[2], GOOD[3], BAD]))
    with Journal.resume(path, RUN) as journal:
        assert (journal.found.done, journal.found.failed, journal.found.repeated) == (4, 1, 3)
    assert path.read_bytes() == joined([*GOOD, BAD])


# What lies beside the output


def test_a_deleted_run_file_is_written_again(path):
    with Journal.create(path, RUN) as journal:
        journal.append(GOOD[0])
        run_path(path).unlink()
    with Journal.resume(path, RUN) as journal:
        assert journal.found.done == 1


@pytest.mark.parametrize("name", [".out.jsonl.run.json", ".out.jsonl.lock", ".out.jsonl.part"])
@pytest.mark.parametrize("begin", [Journal.create, Journal.resume])
def test_a_link_next_to_the_output_is_not_followed(path, name, begin):
    victim = path.with_name("victim")
    victim.write_bytes(b"precious")
    path.with_name(name).symlink_to(victim)
    with begin(path, RUN) as journal:
        journal.append(GOOD[0])
    assert victim.read_bytes() == b"precious"
    assert path.read_bytes() == joined(GOOD[:1])


@pytest.mark.parametrize("name", [".out.jsonl.run.json.part", ".out.jsonl.part"])
def test_a_link_is_not_followed_where_an_output_is_repaired(path, name):
    write(path, GOOD)
    path.write_bytes(b"damaged\n" + joined(GOOD))
    victim = path.with_name("victim")
    victim.write_bytes(b"precious")
    path.with_name(name).symlink_to(victim)
    with Journal.resume(path, RUN) as journal:
        assert journal.found.damaged == 1
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()


@pytest.mark.parametrize("plant", [os.mkfifo, lambda place: place.symlink_to("/dev/zero")])
def test_a_pipe_in_place_of_the_run_file_holds_nothing_up(path, plant):
    write(path, GOOD)
    run_path(path).unlink()
    plant(run_path(path))
    with pytest.raises(UsageError, match=r"run that made .* is unknown|cannot be read"):
        Journal.resume(path, RUN)


# Two runs


def test_deleting_other_files_does_not_allow_a_second_run(path):
    with Journal.create(path, RUN) as journal:
        journal.append(GOOD[0])
        for beside in path.parent.glob(".*"):
            beside.unlink()
        for begin in (Journal.create, Journal.resume):
            with pytest.raises(OutputHeldError):
                begin(path, RUN)


def test_another_name_of_the_same_file_is_the_same_output(path):
    with Journal.create(path, RUN):
        other = path.with_name("other.jsonl")
        other.hardlink_to(path)
        with pytest.raises(OutputHeldError):
            Journal.resume(other, RUN)


def test_a_rewritten_output_is_held(path):
    write(path, GOOD)
    path.write_bytes(b"damaged\n" + joined(GOOD))
    with Journal.resume(path, RUN) as journal:
        assert journal.found.damaged == 1
        with pytest.raises(OutputHeldError):
            Journal.resume(path, RUN)


def test_a_deleted_output_lets_only_one_run_succeed(path):
    first = Journal.create(path, RUN)
    path.unlink()
    with Journal.resume(path, RUN) as second:
        second.append(GOOD[0])
        with pytest.raises(MetalGenError, match="another file has taken its name"):
            first.append(GOOD[1])
        with pytest.raises(MetalGenError):
            first.close()
    assert path.read_bytes() == joined(GOOD[:1])


def test_a_file_system_without_locks_is_refused(path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("metal_gen.batch.output.lock.fcntl.flock", refuse)
    with pytest.raises(UsageError, match="its file system has no locks"):
        Journal.create(path, RUN)
    assert names(path) == []


# What is left behind


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("begin", [Journal.create, Journal.resume])
def test_a_disk_that_is_full_when_a_batch_begins(path, begin, monkeypatch):
    monkeypatch.setattr("metal_gen.files.whole_file.sync_file", full)
    with pytest.raises(MetalGenError, match="No space left") as raised:
        begin(path, RUN)
    assert raised.value.exit_code == ExitCode.UNEXPECTED
    assert "make room" in raised.value.hint
    assert names(path) == []


def test_a_disk_that_is_full_leaves_the_older_records(path, monkeypatch):
    write(path, GOOD)
    before = run_path(path).read_bytes()
    monkeypatch.setattr("metal_gen.files.whole_file.sync_file", full)
    with pytest.raises(MetalGenError, match="No space left"):
        Journal.create(path, {**RUN, "model": "other"}, overwrite=True)
    assert path.read_bytes() == joined(GOOD)
    assert run_path(path).read_bytes() == before


def test_a_name_that_leaves_no_room_for_the_run_file_leaves_nothing(tmp_path):
    with pytest.raises(UsageError, match="File name too long"):
        Journal.create(tmp_path / ("n" * 250), RUN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_there", [True, False])
def test_a_run_that_fails_before_its_first_record_leaves_nothing_new(path, is_there):
    if is_there:
        path.touch()
    with pytest.raises(ZeroDivisionError), Journal.create(path, RUN):
        raise ZeroDivisionError
    assert path.exists() is is_there
    assert is_there or names(path) == []


def test_a_long_end_without_a_newline_is_not_held_in_memory(path, monkeypatch):
    for module in ("record_file", "repair"):
        monkeypatch.setattr(f"metal_gen.batch.output.{module}.LONGEST_RECORD", 1000)
    write(path, GOOD)
    with path.open("ab") as file:
        file.write(b"x" * 5000 + b"\n" + b"y" * 5000)
    with Journal.resume(path, RUN) as journal:
        assert (journal.found.done, journal.found.damaged) == (4, 2)
        with pytest.raises(MetalGenError, match="at most 1,000"):
            journal.append({"id": "long", "text": "x" * 1000})
    assert path.read_bytes() == joined(GOOD)


@pytest.mark.release
def test_a_batch_whose_output_is_cut_ends_with_an_error(tmp_path):
    (tmp_path / "in.jsonl").write_text("".join('{"prompt": "a", "max_tokens": 9}\n' for _ in range(400)))
    output = tmp_path / "out.jsonl"
    process = start_cli("batch", "in.jsonl", "-o", "out.jsonl", home=tmp_path)
    while process.poll() is None and not (output.exists() and output.stat().st_size > 200):
        """It is on its way."""
    os.truncate(output, 0)
    _, stderr = process.communicate()
    assert process.returncode == ExitCode.UNEXPECTED
    assert b"metal-gen: the output out.jsonl was changed by another process" in stderr
    assert b"hint: give --resume" in stderr
    assert b"Traceback" not in stderr
