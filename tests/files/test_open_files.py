"""Tests the limit on open files, which is 256 on a Mac."""

import resource

import pytest

from metal_gen.errors import ConfigError
from metal_gen.files.open_files import OTHERS, allow_open_files


@pytest.fixture
def limits(monkeypatch):
    """Imitates the system's limits: soft, hard."""
    now = [256, resource.RLIM_INFINITY]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, new: now.__setitem__(slice(None), new))
    return now


def test_more_shards_than_a_mac_allows_by_default_can_be_opened(limits):
    allow_open_files(300)
    assert limits == [300 + OTHERS, resource.RLIM_INFINITY]


def test_a_limit_that_is_high_enough_stays(limits):
    allow_open_files(100)
    assert limits == [256, resource.RLIM_INFINITY]


def test_no_limit_is_high_enough(limits):
    limits[0] = resource.RLIM_INFINITY
    allow_open_files(10_000)
    assert limits[0] == resource.RLIM_INFINITY


def test_a_limit_of_the_system_is_named(limits):
    limits[1] = 320
    with pytest.raises(
        ConfigError, match="300 files must be open at once, and this process may open 320"
    ) as error:
        allow_open_files(300)
    assert "administrator" in error.value.hint
    assert limits[0] == 256
