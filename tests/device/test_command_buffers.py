"""Command buffers of Metal are sized by what a step reads, on a Mac that stands in for one."""

import os
import platform

import pytest

from metal_gen.device.command_buffers import (
    COMMAND_BUFFERS,
    ELEMENTS,
    MOST_ELEMENTS,
    OPERATIONS,
    USUAL_ELEMENTS,
    size_command_buffers,
)


@pytest.fixture(autouse=True)
def _on_a_mac(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    for name in COMMAND_BUFFERS:  # Set first, so that they are restored afterwards.
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)


def in_force():
    return [os.environ.get(name) for name in COMMAND_BUFFERS]


@pytest.mark.parametrize(("surplus", "elements"), [(2, 2 * USUAL_ELEMENTS), (8.6, 430), (1e6, MOST_ELEMENTS)])
def test_large_arrays_that_are_not_read_do_not_split_a_step(surplus, elements):
    size_command_buffers(surplus)
    assert os.environ[ELEMENTS] == str(elements)
    assert int(os.environ[OPERATIONS]) > 0


def test_a_step_that_reads_all_keeps_the_limits_of_mlx():
    size_command_buffers(1.1)
    assert in_force() == [None, None]


@pytest.mark.parametrize("name", COMMAND_BUFFERS)
def test_what_a_user_has_set_stays(monkeypatch, name):
    monkeypatch.setenv(name, "7")
    size_command_buffers(5)
    assert sorted(in_force(), key=str) == ["7", None]


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    size_command_buffers(5)
    assert in_force() == [None, None]
