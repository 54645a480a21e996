"""Tests that any settings file is read in bounded time and memory, or refused with one sentence."""

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from metal_gen.config.sources import read_toml
from metal_gen.config.toml_file import MOST_BYTES
from metal_gen.errors import ConfigError

DEEP, LONG = 20_000, 60_000
HOSTILE = {
    "deep list": ("x = " + "[" * DEEP + "]" * DEEP, "nested too deeply"),
    "deep table": ("x = " + "{a = " * DEEP + "1" + "}" * DEEP, "nested too deeply"),
    "dotted": ("a" + ".a" * LONG + " = 1", "a key has a hundred parts"),
    "dotted header": ("[a" + " . a" * (LONG // 2) + "]", "a key has a hundred parts"),
    "dotted and quoted": (
        "[model]\nadapter = {" + '"a".' * (LONG // 2) + "a = 1}",
        "a key has a hundred parts",
    ),
    "one long word": ("a" * LONG * 2, "not valid TOML"),
    "quotes": ('"' * LONG, "not valid TOML"),
    "digits": ("[sampling]\ntop_k = " + "9" * 5000, "a number has thousands of digits"),
    "hexadecimal digits": ("[sampling]\ntop_k = 0x" + "f" * 5000, "top_k must be "),
    "hexadecimal section": ("sampling = 0x" + "f" * 5000, "[sampling] must be a table of settings"),
    "float": ("[sampling]\ntemperature = 1e999", "temperature must be a number"),
    "nul": ("[model]\nname = '\0'", "not valid TOML"),
    "long section": ("[" + "a" * LONG + "]", "there is no section [aaaa"),
    "long key": ("[model]\n" + "a" * LONG + " = 1", "[model] has no setting aaaa"),
    "long value": ("[decode]\ncompile = '" + "a" * LONG + "'", "compile must be auto, on or off, not 'aaaa"),
    "tables of tables": ("[[model]]\n[[model.a]]\n" * 500, "[model] must be a table of settings"),
    "date": ("[sampling]\nseed = 2026-01-01", "seed must be a whole number"),
    "too large": ("#" * (MOST_BYTES + 1), "has more than 128 KiB"),
}


@pytest.mark.parametrize(("text", "part"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_in_a_sentence(tmp_path, text, part):
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert str(path) in caught.value.message
    assert part in caught.value.message
    assert len(caught.value.message) < 800


def test_a_device_is_not_read():
    with pytest.raises(ConfigError, match="is a device: /dev/zero"):
        read_toml(Path("/dev/zero"))


def test_a_pipe_is_read_as_far_as_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write(data):
        with suppress(BrokenPipeError), pipe.open("wb") as file:
            file.write(data)

    for data, expected in ((b"[sampling]\nseed = 3\n", {"seed": 3}), (b"#" * (1 << 24), None)):
        writer = threading.Thread(target=write, args=(data,))
        writer.start()
        if expected is None:
            with pytest.raises(ConfigError, match="has more than"):
                read_toml(pipe)
        else:
            assert read_toml(pipe) == expected
        writer.join()


def test_byte_order_marks_and_line_ends_of_other_systems_are_accepted(tmp_path):
    path = tmp_path / "job.toml"
    path.write_bytes(b"\xef\xbb\xbf[sampling]\r\nseed = 3\r\n")
    assert read_toml(path) == {"seed": 3}


def test_a_key_of_many_parts_may_stand_in_a_text(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("[generation]\nsystem = 'See 1.2.3.4.5.6.7.8.9.10.11.12 and a.b.c.d.e.f.g.h.i.j.k.'\n")
    assert set(read_toml(path)) == {"system"}


def test_a_file_of_nearly_that_name_is_proposed(tmp_path):
    (tmp_path / "job.toml").touch()
    with pytest.raises(ConfigError, match="there is no settings file") as refused:
        read_toml(tmp_path / "jobs.toml")
    assert refused.value.hint == f"did you mean {tmp_path / 'job.toml'}?"
    with pytest.raises(ConfigError, match="there is no settings file") as refused:
        read_toml(tmp_path / "other")
    assert f"config init {tmp_path / 'other'}`" in refused.value.hint
