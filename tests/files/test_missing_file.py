"""A file that cannot be read has a hint that leads to one that can."""

import errno
import os

import pytest

from metal_gen.files.missing_file import how_to_read


def why(path):
    """The error of opening a file."""
    with pytest.raises((FileNotFoundError, IsADirectoryError)) as caught:
        os.close(os.open(path, os.O_RDWR))
    return caught.value


def test_a_name_that_is_nearly_right_is_proposed(tmp_path):
    (tmp_path / "prompts.jsonl").touch()
    missing = tmp_path / "prompt.jsonl"
    assert how_to_read(why(missing), missing) == f"did you mean {tmp_path / 'prompts.jsonl'}?"
    other = tmp_path / "notes"
    assert how_to_read(why(other), other) == f"check the name: `ls {tmp_path}` shows what there is"


def test_a_folder_is_not_proposed_and_is_named_as_one(tmp_path):
    (tmp_path / "prompts").mkdir()
    assert "did you mean" not in how_to_read(why(tmp_path / "prompt"), tmp_path / "prompt")
    assert how_to_read(why(tmp_path / "prompts"), tmp_path / "prompts") == "name a file in it"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    missing = tmp_path / "no" / "rows.jsonl"
    assert how_to_read(why(missing), missing) == f"there is no folder {missing.parent}"


def test_what_may_not_be_read_is_shown_with_its_rights(tmp_path):
    path = tmp_path / "a b"
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert how_to_read(error, path) == f"`ls -l '{path}'` shows who may read it"
    assert how_to_read(OSError(errno.EIO, "bad disk"), path) == "name a file that can be read"
