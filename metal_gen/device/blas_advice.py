"""Advice on faster matrix products on this CPU: another BLAS, or other kernels of the current one."""

import os
from pathlib import Path

from metal_gen.device.blas import AUTO, OPENBLAS_HINT, Blas

CPU_INFO = Path("/proc/cpuinfo")
CORE_VARIABLE = "OPENBLAS_CORETYPE"
# OpenBLAS's names for its kernels on x86, by the newest instructions that they use. A version older than a
# processor takes the processor for one of the oldest.
AVX512_CORES = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
AVX2_CORES = frozenset({"Haswell", "Zen"})


def blas_advice(blas: Blas, wanted: str = AUTO) -> str | None:
    """Return what is faster and how to get it, or None if nothing is known to be.

    Args:
        blas: Library in use.
        wanted: Value of the setting; with `off` or the name of a library, no other one is advised.
    """
    if blas.is_reference:
        return f"OpenBLAS is many times faster: {OPENBLAS_HINT}" if wanted == AUTO else None
    core = _better_core(blas.core)
    if core is None or CORE_VARIABLE in os.environ:
        return None
    return (
        f"it mistakes this processor for an older one ({blas.core}): set {CORE_VARIABLE}={core}, or install "
        "a newer OpenBLAS"
    )


def _better_core(core: str | None) -> str | None:
    """Return kernels that use more of the processor's instructions, or None if there are none."""
    if core is None or core in AVX512_CORES:
        return None
    features = _cpu_features()
    if "avx512f" in features:
        return "SkylakeX"
    return "Haswell" if "avx2" in features and core not in AVX2_CORES else None


def _cpu_features() -> frozenset[str]:
    """Return the instruction sets of an x86 processor, by Linux's names; empty for other processors."""
    try:
        lines = CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":")[1] for line in lines if line.startswith("flags")), "").split())
