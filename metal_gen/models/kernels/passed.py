"""Remembers which kernels gave the right numbers, so that each is tried once on a device.

A small file in the cache folder lists hashes of what was tried: the kernel's code, its sizes, the device, and
the versions of MLX and of the system. Whatever is wrong with the file, kernels are tried again.
"""

import hashlib
import platform
from collections.abc import Callable, Sequence

from metal_gen.device.backend import device_name, mlx_version
from metal_gen.files.kept_file import read_kept, write_kept
from metal_gen.models.kernels.choice import BY_KERNEL, Choice
from metal_gen.models.kernels.dialect import Code, dialect_here
from metal_gen.models.kernels.trial import Trial, reason_against

NAME = "kernels.json"
MOST_BYTES = 1 << 16
# Each takes 36 bytes in the file.
MOST_KEPT = 1000


def trial_key(code: Code, *parts: object) -> str:
    """Return the hash of a trial on this device, with these versions.

    Args:
        code: The kernel.
        parts: What else the result depends on: sizes, dtypes, and how threads share the work.
    """
    here = (device_name(), mlx_version(), platform.release())
    what = (code, dialect_here(), *parts)
    return hashlib.sha256("\0".join(map(str, (*here, *what))).encode()).hexdigest()[:32]


def choice_by_trial(key: str, trials: Sequence[Callable[[], Trial]], tolerance: float) -> Choice:
    """Choose a kernel if all trials go well, now or earlier.

    Args:
        key: Hash of the trials, as `trial_key` returns it.
        trials: Make the trials, each when it is needed.
        tolerance: Largest difference, as for `reason_against`.
    """
    if key in _kept():
        return BY_KERNEL
    for make_trial in trials:
        if reason := reason_against(make_trial(), tolerance):
            return Choice(by_kernel=False, refused=reason)
    # Another process may have written meanwhile.
    kept = [each for each in _kept() if each != key]
    write_kept(NAME, [*kept, key][-MOST_KEPT:])
    return BY_KERNEL


def _kept() -> list[str]:
    kept = read_kept(NAME, MOST_BYTES)
    return kept if isinstance(kept, list) and all(isinstance(each, str) for each in kept) else []
