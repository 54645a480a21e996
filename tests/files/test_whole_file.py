"""Tests files that appear whole or not at all: modes, links, full disks, remains of killed runs."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_process import clean_environment

from metal_gen.files import sync
from metal_gen.files.paths import resolve, why_not_written
from metal_gen.files.whole_file import WholeFile, write_whole

DIE = """
import os, signal, sys
from pathlib import Path
from metal_gen.files.whole_file import WholeFile
file = WholeFile(Path(sys.argv[1]))
file.write(b"half")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.txt"


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def mode(path):
    return path.stat().st_mode & 0o7777


def part_of(path):
    [part] = path.parent.glob(f".{path.name[:30]}*.part")
    return part


def fail(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Whole or not at all


def test_a_file_is_unchanged_until_commit(path):
    path.write_bytes(b"old")
    with WholeFile(path) as file:
        file.write(b"new, ")
        file.write(b"whole")
        assert path.read_bytes() == b"old"
        file.commit()
        assert path.read_bytes() == b"new, whole"
    assert names(path.parent) == ["out.txt"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_discarded_file_leaves_nothing(path, is_there):
    if is_there:
        path.write_bytes(b"old")
    with WholeFile(path) as file:
        file.write(b"new")
    assert names(path.parent) == ["out.txt"] * is_there
    assert not is_there or path.read_bytes() == b"old"


@pytest.mark.parametrize(
    "place", ["metal_gen.files.whole_file.sync_file", "os.fchmod", "pathlib.Path.replace"]
)
def test_a_failed_commit_leaves_nothing(path, place, monkeypatch):
    path.write_bytes(b"old")
    monkeypatch.setattr(place, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert names(path.parent) == ["out.txt"]
    assert path.read_bytes() == b"old"


def test_a_full_disk_leaves_nothing(path):
    code = """
import resource, sys
from pathlib import Path
from metal_gen.files.whole_file import write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(Path(sys.argv[1]), b"x" * 100_000)
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        env=clean_environment(path.parent),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "File too large\n"
    assert names(path.parent) == []


def test_a_removed_part_is_noticed(path):
    with WholeFile(path) as file:
        part = part_of(path)
        part.unlink()
        part.write_bytes(b"another's")
        with pytest.raises(OSError, match="was removed"):
            file.commit()
    assert names(path.parent) == [part.name]


# Modes


@pytest.mark.parametrize(("mask", "new"), [(0o022, 0o644), (0o077, 0o600), (0o000, 0o666), (0o007, 0o660)])
def test_a_new_file_gets_its_mode_from_the_umask(path, mask, new):
    with umask(mask):
        write_whole(path, b"new")
        assert os.umask(mask) == mask
    assert mode(path) == new


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("old", [0o600, 0o640, 0o666, 0o700])
def test_an_old_file_keeps_its_mode(path, old, private):
    path.write_bytes(b"old")
    path.chmod(old)
    write_whole(path, b"new", private=private)
    assert mode(path) == old


def test_a_private_file_is_for_its_owner_only(path):
    with umask(0):
        write_whole(path, b"new", private=True)
    assert mode(path) == 0o600


def test_nobody_else_can_read_it_while_it_is_written(path):
    with umask(0), WholeFile(path):
        assert mode(part_of(path)) == 0o600


# Links and places


def test_a_link_beside_it_is_not_followed(path, monkeypatch):
    victim = path.parent / "victim"
    victim.write_bytes(b"precious")
    chosen = iter([b"\0" * 8, b"\1" * 8])
    monkeypatch.setattr(os, "urandom", lambda count: next(chosen))
    (path.parent / f".out.txt.{'00' * 8}.part").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_whole(path, b"new")
    write_whole(path, b"new")
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()


def test_the_target_of_a_link_is_replaced(path):
    (path.parent / "there").mkdir()
    path.symlink_to("there/real")
    write_whole(path, b"new")
    assert path.is_symlink()
    assert (path.parent / "there" / "real").read_bytes() == b"new"


def circle(folder):
    (folder / "circle").symlink_to("back")
    (folder / "back").symlink_to("circle")
    return folder / "circle"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/out", "there is no folder"),
        ("file/out", "Not a directory"),
        ("folder", "it is a folder"),
        ("pipe", "not a regular file"),
        ("circle", "Too many levels of symbolic links"),
        ("circle/out", "Too many levels of symbolic links"),
        ("a\0b", "null"),
        ("\ud800", "surrogates"),
        ("n" * 256, "File name too long"),
    ],
)
def test_an_unwritable_path_is_refused(tmp_path, name, reason):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    circle(tmp_path)
    before = names(tmp_path)
    with pytest.raises(OSError) as raised:  # noqa: PT011
        WholeFile(tmp_path / name)
    assert reason in why_not_written(raised.value, tmp_path / name)[0]
    assert names(tmp_path) == before


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "日" * 85])
def test_the_longest_name_can_be_written(tmp_path, name):
    write_whole(tmp_path / name, b"new")
    assert names(tmp_path) == [name]


def test_a_missing_working_folder_is_reported(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    for action in (resolve, WholeFile):
        with pytest.raises(FileNotFoundError) as raised:
            action(Path("out.txt"))
        assert why_not_written(raised.value, Path("out.txt"))[0] == "the working folder is gone"


def test_a_circle_of_links_is_refused(tmp_path):
    with pytest.raises(OSError, match="Too many levels"):
        resolve(circle(tmp_path))
    assert resolve(tmp_path / "a" / ".." / "b") == tmp_path / "b"


# Remains of killed writers


def test_parts_of_killed_writers_are_removed(path):
    code = [sys.executable, "-c", DIE, path]
    done = subprocess.run(code, env=clean_environment(path.parent), timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert part_of(path).read_bytes() in (b"", b"half")
    WholeFile(path.parent / "other.txt").discard()
    assert len(names(path.parent)) == 1
    write_whole(path, b"new")
    assert names(path.parent) == ["out.txt"]


def test_parts_of_active_writers_stay(path):
    with WholeFile(path) as first:
        first.write(b"first")
        write_whole(path, b"second")
        first.commit()
    assert path.read_bytes() == b"first"


def test_only_parts_are_removed(path):
    victim = path.parent / "victim"
    victim.write_bytes(b"precious")
    token = "0123456789abcdef"
    kept = [".out.txt.part", f".out.txt.{token}.part.gz", f".out.txt.x.{token}.part", f"out.txt.{token}.part"]
    for name in kept:
        (path.parent / name).touch()
    (path.parent / f".out.txt.{token}.part").symlink_to(victim)
    os.mkfifo(path.parent / f".out.txt.{token[::-1]}.part")
    write_whole(path, b"new")
    left = [*kept, f".out.txt.{token}.part", f".out.txt.{token[::-1]}.part", "out.txt", "victim"]
    assert names(path.parent) == sorted(left)
    assert victim.read_bytes() == b"precious"


# Syncs


@pytest.mark.parametrize(
    ("answer", "synced"), [(None, ["full"]), (errno.ENOTSUP, ["full", "plain"]), (errno.EIO, ["full"])]
)
def test_the_disks_cache_is_flushed_if_possible(monkeypatch, answer, synced):
    said = []

    def full(descriptor, command):
        said.append("full")
        if answer is not None:
            raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(sync, "FULL_SYNC", 51)
    monkeypatch.setattr(sync.fcntl, "fcntl", full)
    monkeypatch.setattr(sync.os, "fsync", lambda descriptor: said.append("plain"))
    if answer == errno.EIO:
        with pytest.raises(OSError, match="error"):
            sync.sync_file(0)
    else:
        sync.sync_file(0)
    assert said == synced


def test_data_and_name_are_both_on_the_disk(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    write_whole(path, b"new")
    assert synced == [path.stat().st_ino, path.parent.stat().st_ino]
