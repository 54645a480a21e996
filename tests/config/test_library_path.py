"""Tests the settings that may name a library by path."""

import pytest

from metal_gen.config.sources import override_with_flags, read_toml, resolve_settings
from metal_gen.errors import ConfigError


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "metal-gen" / "config.toml"
    file.parent.mkdir()
    return file


def write(file, library):
    file.write_text(f'[cpu]\nblas = "{library}"\n')


@pytest.mark.parametrize("library", ["./x.so", "x/y.so", "/home/user/x.so", "../x.so"])
def test_a_file_that_is_named_gives_no_path(tmp_path, library):
    file = tmp_path / "job.toml"
    write(file, library)
    for read in (read_toml, lambda path: resolve_settings(config_file=path)):
        with pytest.raises(
            ConfigError, match=r"job\.toml: \[cpu\] blas must be the name of a library"
        ) as raised:
            read(file)
        assert "--blas" in raised.value.hint


@pytest.mark.parametrize("library", ["auto", "off", "libopenblas.so.0"])
def test_a_name_may_be_anywhere(tmp_path, own, library):
    file = tmp_path / "job.toml"
    write(file, library)
    write(own, library)
    assert resolve_settings(config_file=file).blas == library
    assert resolve_settings(environ={"XDG_CONFIG_HOME": str(tmp_path)}).blas == library
    assert resolve_settings(environ={"METAL_GEN_BLAS": library}).blas == library


def test_ones_own_file_and_a_variable_give_a_whole_path(tmp_path, own):
    write(own, "/opt/lib/x.so")
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert resolve_settings(environ=environ).blas == "/opt/lib/x.so"
    assert resolve_settings(environ={"METAL_GEN_BLAS": "/opt/y.so"}).blas == "/opt/y.so"
    write(own, "./x.so")
    with pytest.raises(ConfigError, match="must be an absolute path"):
        resolve_settings(environ=environ)
    with pytest.raises(ConfigError, match="METAL_GEN_BLAS must be an absolute path"):
        resolve_settings(environ={"METAL_GEN_BLAS": "x/y.so"})


def test_a_flag_gives_any_path():
    assert override_with_flags(resolve_settings(), {"blas": "./x.so"}).blas == "./x.so"
