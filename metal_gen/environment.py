"""The environment of a run: versions, device, and the commit of a git checkout."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from metal_gen import __version__
from metal_gen.device.backend import device_name
from metal_gen.device.blas import blas_in_use

PACKAGE = Path(__file__).resolve().parent


def describe_versions() -> dict[str, str | None]:
    """Return the installed versions; None for what is not installed. Does not load MLX."""
    return {
        "metal_gen": __version__,
        "commit": commit(PACKAGE),
        "mlx": installed_version("mlx"),
        "mlx_lm": installed_version("mlx-lm"),
        "python": platform.python_version(),
        "os": platform.platform(),
    }


def describe_device() -> dict[str, str | int | None]:
    """Return the device that computes, its BLAS and the number of CPUs."""
    blas = blas_in_use()
    return {
        "device": device_name(),
        "blas": None if blas is None else str(blas),
        "cpu_count": os.cpu_count(),
    }


def describe_environment() -> dict[str, str | int | None]:
    """Return versions and device together."""
    return {**describe_versions(), **describe_device()}


def installed_version(package: str) -> str | None:
    """Return the version of an installed package without importing it; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit(package: Path) -> str | None:
    """Return the commit of a package's checkout, with `-dirty` if files have changed.

    Returns:
        None if the package is installed rather than checked out, even inside some repository.
    """
    if not any((folder / ".git").exists() for folder in package.parents):
        return None  # on a Mac without developer tools, git itself would open a dialog to install them
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--match=")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        text=True,
        timeout=10,
    )
    return done.stdout.strip()
