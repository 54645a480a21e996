"""What would make matrix products on this CPU faster: another BLAS, or other kernels of the one in use."""

import os
from pathlib import Path

from metal_gen.device.blas import AUTO, OPENBLAS_HINT, Blas

CPU_INFO = Path("/proc/cpuinfo")
CORE_VARIABLE = "OPENBLAS_CORETYPE"
# The names that OpenBLAS has for its kernels on x86, by the newest instructions that they use. A version
# that is older than a processor takes it for one of the oldest.
AVX512_CORES = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
AVX2_CORES = frozenset({"Haswell", "Zen"})


def blas_advice(blas: Blas, wanted: str = AUTO) -> str | None:
    """Say what is faster, and how to have it; None where nothing is known to be.

    Args:
        blas: In use.
        wanted: What was asked for: `off` or the name of a library needs no other one.
    """
    if blas.is_reference:
        return f"OpenBLAS is many times faster: {OPENBLAS_HINT}" if wanted == AUTO else None
    core = _better_core(blas.core)
    if core is None or CORE_VARIABLE in os.environ:
        return None
    return (
        f"it takes this processor for an older one ({blas.core}): set {CORE_VARIABLE}={core}, or install a "
        "newer OpenBLAS"
    )


def _better_core(core: str | None) -> str | None:
    """Kernels that use more of what the processor has; None where those in use are as good."""
    if core is None or core in AVX512_CORES:
        return None
    features = _cpu_features()
    if "avx512f" in features:
        return "SkylakeX"
    return "Haswell" if "avx2" in features and core not in AVX2_CORES else None


def _cpu_features() -> frozenset[str]:
    """The instructions that an x86 processor has, in the words of Linux; empty for any other."""
    try:
        lines = CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":")[1] for line in lines if line.startswith("flags")), "").split())
