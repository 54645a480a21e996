"""Tests that each piece of a stored prefix is checked when it is read."""

import errno
import os
from itertools import count

import mlx.core as mx
import pytest

from metal_gen.cache.stored_text import StoredArray
from metal_gen.prefix_cache import entry as entries
from metal_gen.prefix_cache.entry import Entry, EntryError, EntryWriter, OtherVersionError, bytes_of

IDS = list(range(70))
LAYOUT = [
    StoredArray("0.keys", (1, 2, 70, 8), mx.float16),
    StoredArray("0.values", (1, 2, 70, 8), mx.float16),
    StoredArray("0.state", (1, 3, 7), mx.float32),
    StoredArray("0.scales", (5,), mx.uint32),
]


@pytest.fixture
def numbers():
    """What is stored."""
    key = mx.random.key(4)
    return [(100 * mx.random.normal(each.shape, key=key)).astype(each.dtype) for each in LAYOUT]


@pytest.fixture
def path(tmp_path, numbers, monkeypatch):
    """An entry whose arrays are cut into several pieces."""
    monkeypatch.setattr(entries, "PIECE_BYTES", 1000)
    writer = EntryWriter(tmp_path / "entry", IDS, LAYOUT, "m")
    for array in numbers:
        writer.add(bytes_of(array))
    writer.commit()
    return tmp_path / "entry"


def read(entry):
    return list(entry.arrays(LAYOUT))


def test_arrays_are_read_as_they_were_written(path, numbers):
    entry = Entry(path)
    entry.verify()
    assert entry.ids() == IDS
    for array, expected in zip(read(entry), numbers, strict=True):
        assert array.dtype == expected.dtype
        assert mx.array_equal(array, expected)


def test_a_changed_byte_of_any_piece_is_found(path):
    """A reader does not check the tokens this way: it compares them with the prompt."""
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    for place in [*range(header_end, len(content), 400), len(content) - 1]:
        changed = bytearray(content)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        entry = Entry(path)
        with pytest.raises(EntryError, match="has changed"):
            entry.verify()
        if place < header_end + 4 * len(IDS):
            assert entry.ids() != IDS
        else:
            with pytest.raises(EntryError, match="has changed"):
                read(entry)


def test_an_entry_that_is_cut_short_after_it_was_opened(path):
    entry = Entry(path)
    size = path.stat().st_size
    for left in (size - 1, size // 2, 20):
        os.truncate(path, left)
        for use in (read, Entry.verify):
            with pytest.raises(EntryError, match="cut short"):
                use(entry)


def test_an_error_in_the_middle_is_told(path, monkeypatch):
    real, calls = os.preadv, count()

    def fail_once(*arguments):
        if next(calls) == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments)

    monkeypatch.setattr(os, "preadv", fail_once)
    with pytest.raises(EntryError, match="cannot read entry: Input/output error"):
        read(Entry(path))


def test_an_entry_without_checksums_of_pieces_is_of_another_version(tmp_path):
    path = tmp_path / "entry"
    notes = {"tokens": "1", "model": "m", "written_s": "0", "crc32": "{}"}
    mx.save_safetensors(str(path), {"ids": mx.array([1], mx.uint32)}, notes)
    path.with_suffix(".safetensors").rename(path)
    with pytest.raises(OtherVersionError, match="is a stored prefix of another version"):
        Entry(path)


def test_damage_is_not_another_version(path):
    content = path.read_bytes()
    for damaged in (content[:-1], content.replace(b'"tokens": "70"', b'"tokens": "7x"')):
        path.write_bytes(damaged)
        with pytest.raises(EntryError) as caught:
            Entry(path)
        assert not isinstance(caught.value, OtherVersionError)


def test_too_few_checksums_contradict_the_arrays(path, monkeypatch):
    """As if the file had been written in larger pieces."""
    monkeypatch.setattr(entries, "PIECE_BYTES", 10_000)
    with pytest.raises(EntryError, match="its header contradicts itself"):
        Entry(path)
