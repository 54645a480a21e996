"""Remembers which kernels gave the right numbers, so that each is tried once on a device.

A small file in the cache folder lists hashes of what was tried: the kernel's code, its sizes, the device, and
the versions of MLX and of the system. Whatever is wrong with the file, kernels are tried again.
"""

import hashlib
import json
import os
import platform
from contextlib import suppress
from pathlib import Path

import mlx.core as mx

from metal_gen.device.backend import device_name
from metal_gen.files.bounded_file import open_regular
from metal_gen.files.json_file import NotJsonError, parse_json
from metal_gen.files.modes import OWNER_MAY
from metal_gen.files.whole_file import write_whole

NAME = "kernels.json"
MOST_BYTES = 1 << 16
# Each takes 36 bytes in the file.
MOST_KEPT = 1000
OWNER_ALONE = 0o700


def trial_key(*parts: object) -> str:
    """Return the hash of a trial on this device, with these versions.

    Args:
        parts: What else the result depends on: the kernel's code, sizes, dtypes.
    """
    here = (device_name(), vars(mx)["__version__"], platform.release(), *parts)
    return hashlib.sha256("\0".join(map(str, here)).encode()).hexdigest()[:32]


def has_passed(key: str) -> bool:
    """Return whether a trial is known to have gone well."""
    return key in _kept()


def keep_passed(key: str) -> None:
    """Remember that a trial went well, if there is a place to."""
    path = _path()
    if path is None:
        return
    kept = [each for each in _kept() if each != key]
    content = json.dumps([*kept, key][-MOST_KEPT:]).encode()
    with suppress(OSError):
        path.parent.mkdir(mode=OWNER_ALONE, parents=True, exist_ok=True)
        write_whole(path, content, private=True, follows_link=False)


def _path() -> Path | None:
    caches = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(caches) if caches else Path.home() / ".cache"
    except RuntimeError:  # There is no home.
        return None
    return folder / "metal-gen" / NAME


def _kept() -> list[str]:
    """Read the file; an empty list if it is missing, damaged, or could be somebody else's."""
    path = _path()
    if path is None or path.is_symlink():
        return []
    try:
        file, size = open_regular(path)
        with file:
            status = os.fstat(file.fileno())
            if size > MOST_BYTES or status.st_uid != os.geteuid() or status.st_mode & 0o777 != OWNER_MAY:
                return []
            kept = parse_json(file.read(MOST_BYTES))
    except (OSError, NotJsonError):
        return []
    is_list = isinstance(kept, list) and all(isinstance(each, str) for each in kept)
    return kept if is_list else []
