"""Tests that an accepted name stays in the folder it is joined with."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metal_gen.files.safe_names import is_commit, is_plain_name

PIECES = st.sampled_from(["..", ".", "/", "\\", "\0", "\n", "a", "é", "~", "\ud800", "x" * 120])


@given(st.lists(PIECES, max_size=5).map("".join) | st.text())
def test_a_name_that_passes_is_a_file_of_its_folder(name):
    if is_plain_name(name):
        place = Path("/models/x", name)
        assert place.parent == Path("/models/x")
        assert place.name == name
        assert len(name.encode()) <= 255


@pytest.mark.parametrize(
    "name", ["config.json", "model-00001-of-00002.safetensors", ".hidden", "a b", "ü", "..."]
)
def test_names_of_files_are_accepted(name):
    assert is_plain_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "a\\b", "a\nb", "\x7f", "é" * 128, 5, None, ["a"]]
)
def test_other_names_are_refused(name):
    assert not is_plain_name(name)


def test_a_commit_is_forty_digits():
    assert is_commit("0123456789abcdef" * 2 + "01234567")
    for other in ("main", "A" * 40, "a" * 39, "a" * 41, "a" * 40 + "\n", "٣" * 40, None, 5):
        assert not is_commit(other)
