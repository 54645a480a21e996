"""The library that computes matrix products on the CPU: loads a fast one, and finds which one is in use.

MLX's Linux wheels for the CPU contain the reference BLAS. The dynamic linker looks for a symbol in globally
loaded libraries before it looks in a library's own dependencies. So an OpenBLAS that is loaded globally
before MLX replaces the reference BLAS. MLX's symbols are bound when it is imported, and cannot be changed
afterwards.
"""

import ctypes
import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from metal_gen.errors import ConfigError

AUTO, OFF = "auto", "off"
# The one with threads first: Fedora's libopenblas.so.0 has none. Names with 64 in them are left out, because
# those libraries take integers of another size than MLX passes.
OPENBLAS_NAMES = ("libopenblasp.so.0", "libopenblas.so.0")
OPENBLAS_HINT = "apt install libopenblas0-pthread, or dnf install openblas-threads"
OTHER_NAME_HINT = f"leave blas out, or name an OpenBLAS, such as {OPENBLAS_NAMES[-1]}"
SYMBOL = "cblas_sgemm"
WHEEL_LIBRARIES = "mlx_cpu.libs"


@dataclass(frozen=True)
class Blas:
    """The library that MLX's matrix products are bound to.

    Attributes:
        file: Path of the library.
        version: Version, such as `OpenBLAS 0.3.21`; None for another BLAS.
        threads: Maximum number of threads of OpenBLAS.
        core: Processor whose kernels OpenBLAS uses, by OpenBLAS's name.
    """

    file: Path
    version: str | None = None
    threads: int | None = None
    core: str | None = None

    @property
    def is_reference(self) -> bool:
        """Whether this is the slow BLAS in MLX's wheel."""
        return self.file.parent.name == WHEEL_LIBRARIES

    def __str__(self) -> str:
        if self.is_reference:
            return "the reference BLAS in MLX"
        if self.version is None:
            return self.file.name
        noun = "thread" if self.threads == 1 else "threads"
        kernels = f" for {self.core}" if self.core else ""
        return f"{self.version}{kernels}, {self.threads} {noun} ({self.file.name})"


def prefer_openblas(wanted: str, *, most_threads: int | None = None) -> None:
    """Load OpenBLAS so that MLX uses it when it is imported later.

    This does nothing if MLX is already imported, on any system but Linux, and with a CUDA build.

    Args:
        wanted: `auto` loads the system's OpenBLAS if MLX would use the reference BLAS; `off` loads none;
            anything else is the name or path of an OpenBLAS.
        most_threads: Maximum number of threads; OPENBLAS_NUM_THREADS may set a lower one.

    Raises:
        ConfigError: The named library cannot be used.
    """
    if wanted == OFF or "mlx.core" in sys.modules or not may_matter():
        return
    if wanted != AUTO:
        _load_for_all(wanted, most_threads)
    elif brings_reference_blas():
        for name in OPENBLAS_NAMES:
            with suppress(ConfigError):
                _load_for_all(name, most_threads)
                return


def _load_for_all(name: str, most_threads: int | None) -> None:
    hint = OPENBLAS_HINT if name in OPENBLAS_NAMES else OTHER_NAME_HINT
    try:
        library = ctypes.CDLL(name, mode=ctypes.RTLD_LOCAL)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot load the BLAS {name}: {error}", hint) from None
    config = _openblas_config(library)
    if config is None or not hasattr(library, SYMBOL):
        raise ConfigError(f"cannot use {name} as BLAS: it is not OpenBLAS", hint)
    if "USE64BITINT" in config:
        raise ConfigError(f"cannot use {name} as BLAS: it uses 64-bit integers", hint)
    ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    if most_threads is not None and most_threads < library.openblas_get_num_threads():
        library.openblas_set_num_threads(most_threads)


def may_matter() -> bool:
    """Return whether this MLX computes with a BLAS that can be replaced."""
    return platform.system() == "Linux" and not has_cuda()


def has_cuda() -> bool:
    """Return whether MLX is a CUDA build."""
    return _is_beside_mlx("mlx_cuda*")


def brings_reference_blas() -> bool:
    """Return whether MLX is the wheel that contains the reference BLAS."""
    return _is_beside_mlx(f"{WHEEL_LIBRARIES}/libblas*")


def _is_beside_mlx(pattern: str) -> bool:
    """Look next to the installed MLX without importing it. Reading package metadata would take longer."""
    spec = find_spec("mlx")
    folders = map(Path, (spec.submodule_search_locations if spec else None) or ())
    found = (path for folder in folders if (folder / "lib").is_dir() for path in folder.parent.glob(pattern))
    return next(found, None) is not None


def _openblas_config(library: ctypes.CDLL) -> str | None:
    """Return a line such as `OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH SkylakeX MAX_THREADS=64`."""
    return _openblas_text(library, "openblas_get_config")


def _openblas_text(library: ctypes.CDLL, name: str) -> str | None:
    """Return the text from a function without arguments, or None if there is no such function."""
    if not hasattr(library, name):
        return None
    function = getattr(library, name)
    function.restype = ctypes.c_char_p
    return str((function() or b"").decode(errors="replace"))


def blas_in_use() -> Blas | None:
    """Ask the dynamic linker which library MLX is bound to.

    Returns:
        The library; None if MLX has not been imported, or does not compute with a BLAS.
    """
    if not may_matter():
        return None
    loaded = _loaded_files()
    mlx = next((file for file in loaded if Path(file).name == "libmlx.so"), None)
    if mlx is None:
        return None
    everybodys, own = _file_of_symbol(ctypes.CDLL(None)), _file_of_symbol(_loaded(mlx))
    before_mlx = loaded[: loaded.index(mlx)]
    file = everybodys if everybodys in before_mlx else own
    if file is None:
        return None
    library = _loaded(file)
    config = _openblas_config(library)
    if config is None:
        return Blas(Path(file))
    version, threads = " ".join(config.split()[:2]), library.openblas_get_num_threads()
    return Blas(Path(file), version, threads, _openblas_text(library, "openblas_get_corename"))


def blas_notice(wanted: str) -> str | None:
    """Return a notice if a library was named but MLX is bound to another one."""
    if wanted in (AUTO, OFF) or (in_use := blas_in_use()) is None:
        return None
    try:
        if _file_of_symbol(_loaded(wanted)) == str(in_use.file):
            return None
    except (OSError, ValueError):
        pass
    return f"blas = {wanted!r} has no effect: MLX is already bound to {in_use}"


def _loaded(file: str) -> ctypes.CDLL:
    return ctypes.CDLL(file, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)


class _SymbolInfo(ctypes.Structure):
    """The C library's Dl_info."""

    _fields_ = (
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    )


def _file_of_symbol(scope: ctypes.CDLL) -> str | None:
    """Return the file that contains the symbol, looked up in a scope."""
    if not hasattr(scope, SYMBOL):
        return None
    info = _SymbolInfo()
    address = ctypes.cast(getattr(scope, SYMBOL), ctypes.c_void_p)
    found = ctypes.CDLL(None).dladdr(address, ctypes.byref(info))
    return os.fsdecode(info.dli_fname) if found else None


class _LoadedObject(ctypes.Structure):
    """The beginning of the C library's dl_phdr_info."""

    _fields_ = (("dlpi_addr", ctypes.c_void_p), ("dlpi_name", ctypes.c_char_p))


def _loaded_files() -> list[str]:
    """Return the program's libraries in the order in which they were loaded."""
    files = []

    def note(loaded: "ctypes._Pointer[_LoadedObject]", size: int, data: int | None) -> int:
        files.append(os.fsdecode(loaded.contents.dlpi_name or b""))
        return 0

    pointer = ctypes.POINTER(_LoadedObject)
    visitor = ctypes.CFUNCTYPE(ctypes.c_int, pointer, ctypes.c_size_t, ctypes.c_void_p)
    ctypes.CDLL(None).dl_iterate_phdr(visitor(note), None)
    return files
