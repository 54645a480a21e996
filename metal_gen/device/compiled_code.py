"""Checks that the folder where MLX keeps compiled code can be written by nobody else.

MLX runs any file with a name it knows in `mlx/VERSION` of the folder for temporary files, whoever put it
there.

Source: `compile` in `mlx/backend/cpu/compiled.cpp` and `ptx_cache_dir` in `mlx/backend/cuda/jit_module.cpp`
of MLX 0.32.
"""

import os
import platform
import stat
from pathlib import Path

from metal_gen.errors import ConfigError
from metal_gen.files.kept_file import cache_folder

# Variables in the order in which C++ looks for the folder.
TEMPORARY = ("TMPDIR", "TMP", "TEMP", "TEMPDIR")
DEFAULT = "/tmp"
PTX_VARIABLE = "MLX_PTX_CACHE_DIR"
OWNER_MAY = 0o700
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def require_own_code() -> None:
    """Check that code compiled for the CPU can come from nobody else.

    Raises:
        ConfigError: Somebody else can put code there.
    """
    try:
        _require_own(_code_folder("cpu"))
    except OSError as error:
        raise ConfigError(
            f"code compiled for the CPU cannot be kept safely: {error.filename}: {error.strerror}",
            "set TMPDIR to a folder that only you can write to, or leave compile at auto",
        ) from None


def keep_own_ptx() -> None:
    """Move MLX's cache of compiled CUDA kernels below the user's home if somebody else could write to it.

    Compiling them again takes minutes. Without a home, the cache is turned off.
    """
    if PTX_VARIABLE in os.environ:
        return
    try:
        _require_own(_code_folder("ptx"))
    except OSError:
        os.environ[PTX_VARIABLE] = _ptx_at_home()


def _ptx_at_home() -> str:
    """Return a folder of this user on this machine: a machine with the same home may have another GPU."""
    caches = cache_folder()
    if caches is None:
        return ""
    try:
        own = caches / (platform.node() or "here")
        own.mkdir(mode=OWNER_MAY, parents=True, exist_ok=True)
        folder = _folder_below(own, "ptx")
        _require_own(folder)
    except OSError:
        return ""
    return str(folder)


def _code_folder(kind: str) -> Path:
    temporary = next((os.environ[name] for name in TEMPORARY if name in os.environ), DEFAULT)
    return _folder_below(Path(temporary).absolute(), kind)


def _folder_below(place: Path, kind: str) -> Path:
    import mlx.core as mx

    return place / "mlx" / str(vars(mx)["__version__"]) / kind


def _require_own(folder: Path) -> None:
    """Make a folder that nobody else can open, or check that it and its contents are ours.

    Raises:
        OSError: It is not, or cannot be made. The error names the place and the reason.
    """
    mlx, version = folder.parents[1], folder.parents[0]
    for parent in mlx.parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PermissionError(0, "others can move its contents", str(parent))
    for place in (mlx, version, folder):
        place.mkdir(mode=OWNER_MAY, exist_ok=True)
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(0, "it is a link, or not a folder", str(place))
        _require_ours(place, status)
        if status.st_mode & OTHERS_WRITE:
            raise PermissionError(0, "others can write to it", str(place))
    folder.chmod(OWNER_MAY)
    for file in folder.rglob("*"):
        _require_ours(file, file.lstat())


def _require_ours(place: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise PermissionError(0, "it belongs to somebody else", str(place))
    if stat.S_ISLNK(status.st_mode):
        raise PermissionError(0, "it is a link", str(place))
