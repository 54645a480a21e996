"""Tests reading of JSON from outside: strict, and refused before it costs much."""

import json
import os
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metal_gen.errors import CheckpointError
from metal_gen.files.json_file import MOST_LEVELS, NotJsonError, parse_json, read_json


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not JSON: a value is missing at character 1"),
        ('{"a": 1,}', "is not JSON: "),
        (b"\xff\xfe{\x00}\x00", "is not JSON: it is UTF-16, not UTF-8"),
        (b"{\0}\0{\0}\0", "is not JSON: it is UTF-16, not UTF-8"),
        (b"\x1f\x8b\x08\0", "is not JSON: it is compressed with gzip, not text"),
        (b"%PDF-1.4", "is not JSON: it is a PDF, not text"),
        (b'{"a": "\xe9"}', "is not JSON: it is not UTF-8: byte 7 is 0xe9"),
        ("\ud800", "is not JSON: it is not UTF-8"),
        ("[NaN]", "is not JSON: NaN is not a number"),
        ("[-Infinity]", "is not JSON: -Infinity is not a number"),
        ("1e999", "is JSON with a number that is too large: 1e999"),
        ("1" * 101, "is JSON with a number of 101 digits"),
        ("-" + "9" * 5000, "is JSON with a number of 5,001 digits"),
        (r'["\ud800"]', "is JSON with an unpaired surrogate"),
        (r'{"\uDC00x": 1}', "is JSON with an unpaired surrogate"),
        ("[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1), "nested deeper than 100 levels"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested deeper than 100 levels"),
        ("[" * 200_000, "nested deeper than 100 levels"),
        ("[" + "0," * 8_000_000 + "0]", "is JSON with more than 8,000,000 values"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_suspicious_json_is_refused(text, why):
    with pytest.raises(NotJsonError) as refusal:
        parse_json(text)
    assert why in str(refusal.value)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ("\ufeff[1]", [1]),
        (str(10**30), 10**30),
        ("1e308", 1e308),
        (r'"\ud83d\ude00 \\ud800"', "\U0001f600 \\ud800"),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("[" * MOST_LEVELS + "]" * MOST_LEVELS, None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_ordinary_json_is_read(text, value):
    assert value is None or parse_json(text) == value
    parse_json(text)


def test_duplicate_names_are_refused_on_request():
    with pytest.raises(NotJsonError, match="twice: b"):
        parse_json('[{"a": 1, "b": {"a": 1}, "b": 2}]', unique_names=True)
    many = json.dumps({str(n): n for n in range(100_000)})
    assert len(parse_json(many, unique_names=True)) == 100_000


def test_a_vocabulary_skips_some_checks_but_fails_with_a_message():
    deep = '{"a":' * (MOST_LEVELS + 1) + "1" + "}" * (MOST_LEVELS + 1)
    assert parse_json(deep, is_vocabulary=True)["a"]
    for text in ("9" * 5000, "[" * 200_000, "[NaN]", r'["\ud800"]'):
        with pytest.raises(NotJsonError):
            parse_json(text, is_vocabulary=True)


NUMBERS = st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_whatever_can_be_written_is_read_back(value):
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\ud8N-1e9 ', max_size=60))
def test_any_bytes_are_refused_or_can_be_written_again(data):
    with suppress(NotJsonError):
        json.dumps(parse_json(data), ensure_ascii=False, allow_nan=False).encode()


def test_the_size_of_a_file_is_checked_before_reading(tmp_path):
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    (tmp_path / "folder.json").mkdir()
    zero = tmp_path / "zero.json"
    zero.symlink_to("/dev/zero")
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    for path, why in {
        large: "more than 128.0 MiB",
        pipe: "Not a regular file",
        zero: "Not a regular file",
        tmp_path / "folder.json": "Is a directory",
        loop: "symbolic links",
        tmp_path / ("x" * 300): "name too long",
        tmp_path / "a\0b": "No file can have this name",
    }.items():
        with pytest.raises(CheckpointError, match=why):
            read_json(path)


def test_a_value_that_is_not_an_object_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[]")
    with pytest.raises(CheckpointError, match="must hold a JSON object, not list"):
        read_json(path)


def test_depth_is_the_same_from_wherever_it_is_read():
    """The limit on depth must not depend on how much of the stack is in use."""

    def deeper(frames):
        return parse_json("[" * MOST_LEVELS + "]" * MOST_LEVELS) if not frames else deeper(frames - 1)

    assert deeper(sys.getrecursionlimit() - 500 - MOST_LEVELS)
