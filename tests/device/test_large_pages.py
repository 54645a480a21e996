"""Tests how large pages are asked for."""

import ctypes
import mmap
from pathlib import Path

import pytest

from metal_gen.device import large_pages
from metal_gen.device.large_pages import LEAST_BYTES, use_large_pages

HAS_LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage").exists()
ADVICE = 14


def address_of(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


@pytest.fixture
def asked(monkeypatch):
    """What a C library is asked, on a system that has large pages."""

    class Library:
        def __init__(self):
            self.calls = []

        def madvise(self, *arguments):
            self.calls.append(tuple(argument.value for argument in arguments))
            return -1  # What a system without large pages returns.

    library = Library()
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", ADVICE, raising=False)
    monkeypatch.setattr(large_pages, "_c_library", lambda: library)
    return library.calls


@pytest.mark.parametrize("offset", [0, 24, mmap.PAGESIZE - 1, mmap.PAGESIZE])
def test_pages_that_hold_the_memory_are_asked_for(asked, offset):
    memory = memoryview(bytearray(3 * LEAST_BYTES))[offset : offset + LEAST_BYTES + 5]
    use_large_pages(memory)
    [(first, nbytes, advice)] = asked
    begin = address_of(memory)
    assert first % mmap.PAGESIZE == 0
    assert begin - mmap.PAGESIZE < first <= begin
    assert first + nbytes == begin + len(memory)
    assert advice == ADVICE


def test_memory_of_other_numbers_than_bytes_has_as_many_bytes(asked):
    use_large_pages(memoryview(bytearray(LEAST_BYTES)).cast("I"))
    [(first, nbytes, _)] = asked
    assert 0 <= nbytes - LEAST_BYTES < mmap.PAGESIZE
    assert first


def test_small_memory_has_no_large_page(asked):
    use_large_pages(memoryview(bytearray(LEAST_BYTES - 1)))
    use_large_pages(memoryview(bytearray()))
    assert not asked


def test_nothing_is_asked_on_a_mac(asked, monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    use_large_pages(memoryview(bytearray(2 * LEAST_BYTES)))
    assert not asked


@pytest.mark.skipif(not HAS_LARGE_PAGES, reason="this kernel has no large pages")
def test_linux_is_asked_and_the_memory_stays_as_it_is():
    with mmap.mmap(-1, 2 * LEAST_BYTES) as mapped:
        mapped[5] = 7
        with memoryview(mapped) as whole, whole[: LEAST_BYTES + 1] as memory:
            use_large_pages(memory)
            assert "hg" in flags_at(address_of(memory))
        assert mapped[5] == 7


def flags_at(address):
    """Return Linux's flags of the memory at an address."""
    is_there = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            begin, end = (int(number, 16) for number in first.split("-"))
            is_there = begin <= address < end
        elif is_there and first == "VmFlags:":
            return rest
    raise LookupError(address)
