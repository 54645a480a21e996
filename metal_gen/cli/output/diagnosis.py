"""The findings of `metal-gen info`: one function per section; a failing section does not stop the others.

Reveals no secrets: of a token only whether there is one, of settings only where they are set.
"""

import math
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from metal_gen.cli.output.session import Section, describe_mac, describe_session
from metal_gen.config.settings import Settings
from metal_gen.config.sources import resolve_settings, unknown_variables, user_config_file
from metal_gen.errors import MetalGenError

if TYPE_CHECKING:
    from metal_gen.device_checks.check import CheckResult

PACKAGES = ("huggingface-hub", "tokenizers", "typer", "rich")
BACKENDS = ("mlx-cpu", "mlx-cuda-12", "mlx-cuda-13", "mlx-metal")

# Called with a check's result, the number of checks done, and their total.
OnCheck = Callable[["CheckResult", int, int], None]


@dataclass
class Diagnosis:
    """The findings.

    Attributes:
        sections: Sections by name, each with JSON values by name.
        problems: Why something is unusable, or could not be determined.
    """

    sections: dict[str, Section] = field(default_factory=dict)
    problems: list[Exception] = field(default_factory=list)

    def add(self, name: str, find: Callable[[], Section]) -> None:
        """Add a section, or the reason why it is missing; even a bug is reported with the rest."""
        try:
            self.sections[name] = find()
        except Exception as error:
            self.problems.append(error)


def diagnose(on_check: OnCheck | None = None) -> Diagnosis:
    """Examine the machine and the installation; computations come last.

    Args:
        on_check: If given, check every kernel path of the device, and call this after each check, with its
            result, the number done and the total.
    """
    diagnosis = Diagnosis()
    settings = Settings()
    try:
        settings = resolve_settings(environ=os.environ)
    except MetalGenError as error:
        diagnosis.problems.append(error)
    diagnosis.add("versions", _versions)
    diagnosis.add("device", lambda: _device(settings))
    has_mlx = "device" in diagnosis.sections
    diagnosis.add("session", lambda: describe_session(has_mlx=has_mlx))
    if platform.system() == "Darwin":
        diagnosis.add("mac", describe_mac)
    if has_mlx:
        diagnosis.add("memory", lambda: _memory(settings))
    diagnosis.add("limits", _limits)
    diagnosis.add("cache", _cache)
    diagnosis.add("settings", lambda: _settings(settings))
    diagnosis.add("terminal", _terminal)
    if has_mlx:
        diagnosis.add("self_test", _self_test)
        if not diagnosis.sections.get("self_test", {}).get("passed", True):
            diagnosis.problems.append(_failed(diagnosis.sections["self_test"]))
    if has_mlx and on_check is not None:
        diagnosis.add("device_checks", lambda: _device_checks(on_check))
        if failed := diagnosis.sections.get("device_checks", {}).get("failed"):
            diagnosis.problems.append(_differs(failed))
    return diagnosis


def _versions() -> Section:
    from metal_gen.environment import describe_versions, installed_version

    found = {name.replace("-", "_"): installed_version(name) for name in (*BACKENDS, *PACKAGES)}
    return {**describe_versions(), **{name: version for name, version in found.items() if version}}


def _device(settings: Settings) -> Section:
    from metal_gen.device.backend import require_mlx

    require_mlx(settings.blas)

    from metal_gen.device.blas import blas_in_use
    from metal_gen.device.blas_advice import blas_advice
    from metal_gen.environment import describe_device

    blas = blas_in_use()
    advice = None if blas is None else blas_advice(blas, settings.blas)
    return {**describe_device(), **({} if advice is None else {"blas_advice": advice})}


def _memory(settings: Settings) -> Section:
    import mlx.core as mx

    from metal_gen.device.backend import (
        available_memory_bytes,
        can_wire_memory,
        counts_other_programs,
        preferred_chunk_size,
        wires_memory,
    )
    from metal_gen.device.mac_memory import unused_memory_bytes

    on_mac = platform.system() == "Darwin"
    return {
        "total_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "available_bytes": available_memory_bytes() or None,
        **({"left_by_other_programs_bytes": unused_memory_bytes()} if on_mac else {}),
        "counts_other_programs": counts_other_programs(),
        "memory_limit_bytes": settings.memory_limit_bytes,
        "chunk_size": settings.chunk_size or preferred_chunk_size(),
        "can_be_wired": can_wire_memory(),
        "is_wired": wires_memory(settings.wired_memory),
        "mlx_says": dict(mx.device_info()),
    }


def _limits() -> Section:
    def limit(kind: int) -> int | None:
        soft, _ = resource.getrlimit(kind)
        return None if soft == resource.RLIM_INFINITY else soft

    return {
        "open_files": limit(resource.RLIMIT_NOFILE),
        "address_space_bytes": limit(resource.RLIMIT_AS),
        "cpus": _usable_cpus(),
    }


def _usable_cpus() -> int | None:
    """Return the number of CPUs that this process may use, by its affinity and its control group."""
    from metal_gen.device.limits import control_group_cpus

    affinity = getattr(os, "sched_getaffinity", None)
    counts = (os.cpu_count() if affinity is None else len(affinity(0)), control_group_cpus())
    return min((count for count in counts if count is not None), default=None)


def _cache() -> Section:
    from metal_gen.hub.cache import cache_folder, free_bytes
    from metal_gen.hub.cached_models import cache_contents
    from metal_gen.hub.library import library_constants

    constants = library_constants()
    contents = cache_contents()
    return {
        "folder": str(cache_folder()),
        "exists": cache_folder().is_dir(),
        "models": len(contents.models),
        "size_bytes": contents.size_bytes,
        "free_bytes": free_bytes(),
        "hub": urlsplit(constants.ENDPOINT).hostname,
        "is_offline": constants.HF_HUB_OFFLINE,
        "has_token": bool(os.environ.get("HF_TOKEN")) or os.path.isfile(constants.HF_TOKEN_PATH),  # noqa: PTH113
    }


def _settings(settings: Settings) -> Section:
    file = user_config_file(os.environ)
    return {
        "file": None if file is None else str(file),
        "exists": file is not None and os.path.isfile(file),  # noqa: PTH113
        "set": dict(settings.sources),
        "unknown_variables": list(unknown_variables(os.environ)),
    }


def _terminal() -> Section:
    return {
        "stdout": sys.stdout.isatty(),
        "stderr": sys.stderr is not None and sys.stderr.isatty(),
        "term": os.environ.get("TERM"),
        "columns": shutil.get_terminal_size().columns,
        "encoding": sys.stdout.encoding,
    }


def _self_test() -> Section:
    from metal_gen.generation.self_test import run_self_test

    test = run_self_test()
    return {
        "passed": test.passed,
        "text": test.text,
        "least_logprob": test.least_logprob if math.isfinite(test.least_logprob) else None,
        "load_s": test.load_s,
        "ttft_s": test.ttft_s,
        "decode_tps": test.decode_tps,
    }


def _device_checks(on_check: OnCheck) -> Section:
    from metal_gen.device_checks.every import run_every_check

    results = run_every_check(on_check)
    return {
        "passed": sum(result.passed for result in results),
        "failed": [result.name for result in results if not result.passed],
        "seconds": sum(result.seconds for result in results),
        "checks": [
            {
                "name": result.name,
                "passed": result.passed,
                "difference": result.difference,
                "tolerance": result.tolerance,
                "seconds": round(result.seconds, 3),
                "error": result.error,
            }
            for result in results
        ],
    }


def _differs(failed: object) -> MetalGenError:
    assert isinstance(failed, list)
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return MetalGenError(
        f"this device does not compute what a CPU computes: {failed[0]}{more}",
        "please report it, with the output of `metal-gen info --deep --json`",
    )


def _failed(test: Section) -> MetalGenError:
    return MetalGenError(
        f"the self-test failed: the bundled model said {test['text']!r}, least probable token "
        f"{test['least_logprob']}",
        "this build of MLX may not fit the machine: please report it, with what metal-gen info --json says",
    )
