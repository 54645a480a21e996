"""Tests that MLX runs compiled code only from a folder that nobody else can write to."""

import os
from pathlib import Path

import mlx.core as mx
import pytest

from metal_gen.device import backend
from metal_gen.device.compiled_code import PTX_VARIABLE, keep_own_ptx, require_own_code
from metal_gen.errors import ConfigError


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    monkeypatch.delenv(PTX_VARIABLE, raising=False)
    yield folder
    os.environ.pop(PTX_VARIABLE, None)


def code_folder(temporary, kind="cpu"):
    return temporary / "mlx" / mx.__version__ / kind


def test_the_folder_is_made_for_its_owner_alone(temporary):
    require_own_code()
    folder = code_folder(temporary)
    assert [place.stat().st_mode & 0o777 for place in (folder, *folder.parents[:2])] == [0o700] * 3
    (folder / "libcode.so").touch()
    require_own_code()


def test_folders_that_mlx_made_are_closed_to_others(temporary):
    folder = code_folder(temporary)
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    require_own_code()
    assert folder.stat().st_mode & 0o777 == 0o700


def open_to_all(temporary):
    temporary.chmod(0o777)


def writable(temporary):
    code_folder(temporary).parent.mkdir(parents=True)
    code_folder(temporary).parent.chmod(0o775)


def linked(temporary):
    (temporary / "elsewhere").mkdir()
    (temporary / "mlx").symlink_to("elsewhere")


def linked_code(temporary):
    code_folder(temporary).mkdir(parents=True, mode=0o700)
    (code_folder(temporary) / "libcode.so").symlink_to("/nowhere/lib.so")


def a_file(temporary):
    (temporary / "mlx").touch()


@pytest.mark.parametrize("plant", [open_to_all, writable, linked, linked_code, a_file])
def test_a_place_that_others_can_write_to_is_refused(temporary, plant):
    plant(temporary)
    with pytest.raises(ConfigError, match="cannot be kept safely") as raised:
        require_own_code()
    assert "TMPDIR" in raised.value.hint
    keep_own_ptx()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_files_of_another_user_are_refused(temporary, depth):
    folder = code_folder(temporary)
    folder.mkdir(parents=True, mode=0o700)
    (folder / "libcode.so").touch()
    place = [temporary / "mlx", folder.parent, folder, folder / "libcode.so"][depth]
    os.chown(place, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        require_own_code()


def test_no_compiled_step_without_a_safe_place(temporary, monkeypatch):
    monkeypatch.setattr(backend, "runs_on_cpu", lambda: True)
    monkeypatch.setattr(backend.shutil, "which", lambda name: name)
    assert backend.compiles_steps("on")
    temporary.chmod(0o777)
    with pytest.raises(ConfigError, match="others can move"):
        backend.compiles_steps("on")
    assert not backend.compiles_steps("auto")


def test_kernels_for_cuda_are_kept_in_a_safe_place_or_not_at_all(temporary, monkeypatch, tmp_path):
    keep_own_ptx()
    assert PTX_VARIABLE not in os.environ
    assert code_folder(temporary, "ptx").is_dir()
    monkeypatch.setenv(PTX_VARIABLE, "/chosen")
    temporary.chmod(0o777)
    keep_own_ptx()
    assert os.environ[PTX_VARIABLE] == "/chosen"
    monkeypatch.delenv(PTX_VARIABLE)
    keep_own_ptx()
    own = Path(os.environ[PTX_VARIABLE])
    assert own.is_relative_to(tmp_path / "home" / "cache" / "metal-gen")
    assert own.stat().st_mode & 0o777 == 0o700
    (tmp_path / "home").chmod(0o777)
    monkeypatch.delenv(PTX_VARIABLE)
    keep_own_ptx()
    assert os.environ[PTX_VARIABLE] == ""
