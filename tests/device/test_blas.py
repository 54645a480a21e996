"""Tests that OpenBLAS replaces the reference BLAS where possible, and only there."""

import ctypes
import platform
import re
import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest
from cli_process import clean_environment, run_cli

from metal_gen.device import blas
from metal_gen.errors import ConfigError

pytest_plugins = ("fixtures_text",)

CONFIG = b"OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH SkylakeX MAX_THREADS=64"


class Library:
    """Imitates an OpenBLAS library."""

    def __init__(self, config=CONFIG, threads=8):
        self.openblas_get_config = lambda: config
        self.threads = threads
        self.cblas_sgemm = None

    def openblas_get_num_threads(self):
        return self.threads

    def openblas_set_num_threads(self, threads):
        self.threads = threads


class Linker:
    """Imitates `ctypes.CDLL`: knows some libraries, and records the requested ones."""

    def __init__(self, **libraries):
        self.libraries = libraries
        self.asked, self.loaded_for_all = [], []

    def __call__(self, name, mode=ctypes.RTLD_LOCAL):
        self.asked.append(name)
        if name not in self.libraries:
            raise OSError(f"{name}: cannot open shared object file")
        if mode == ctypes.RTLD_GLOBAL:
            self.loaded_for_all.append(name)
        return self.libraries[name]


@pytest.fixture
def make_linker(monkeypatch):
    """Install a fake linker, as before MLX is imported."""

    def make(**libraries):
        linker = Linker(**libraries)
        monkeypatch.setattr(blas.ctypes, "CDLL", linker)
        return linker

    monkeypatch.delitem(sys.modules, "mlx.core")
    return make


@pytest.fixture
def install_mlx(monkeypatch, tmp_path):
    """Make an installation of MLX with files next to it."""

    def install(*beside, system="Linux"):
        (tmp_path / "mlx" / "lib").mkdir(parents=True)
        for name in beside:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        spec = ModuleSpec("mlx", None, is_package=True)
        # An empty folder of this name is part of the namespace too.
        spec.submodule_search_locations = [str(tmp_path / "empty" / "mlx"), str(tmp_path / "mlx")]
        monkeypatch.setattr(blas, "find_spec", lambda name: spec)
        monkeypatch.setattr(platform, "system", lambda: system)

    return install


CPU_WHEEL = "mlx_cpu.libs/libblas-bd8a282c.so.3.10.0"
CUDA_WHEEL = "mlx_cuda_13.libs/libblas-bd8a282c.so.3.10.0"


def test_auto_takes_the_first_openblas_there_is(make_linker, install_mlx):
    install_mlx(CPU_WHEEL)
    linker = make_linker(**{"libopenblas.so.0": Library()})
    blas.prefer_openblas("auto")
    assert linker.asked[:2] == ["libopenblasp.so.0", "libopenblas.so.0"]
    assert linker.loaded_for_all == ["libopenblas.so.0"]


def test_auto_skips_libraries_that_mlx_cannot_call(make_linker, install_mlx):
    install_mlx(CPU_WHEEL)
    wide = Library(CONFIG + b" USE64BITINT")
    linker = make_linker(**{"libopenblasp.so.0": wide, "libopenblas.so.0": object()})
    blas.prefer_openblas("auto")
    assert linker.loaded_for_all == []


def test_auto_is_silent_where_there_is_none(make_linker, install_mlx, capfd):
    install_mlx(CPU_WHEEL)
    linker = make_linker()
    blas.prefer_openblas("auto")
    assert linker.asked
    assert capfd.readouterr() == ("", "")


def test_auto_leaves_an_mlx_with_another_blas_alone(make_linker, install_mlx):
    install_mlx()
    linker = make_linker(**{"libopenblas.so.0": Library()})
    blas.prefer_openblas("auto")
    assert linker.asked == []
    blas.prefer_openblas("libopenblas.so.0")
    assert linker.loaded_for_all == ["libopenblas.so.0"]


@pytest.mark.parametrize("wanted", ["auto", "libopenblas.so.0", "/no/such/library.so"])
@pytest.mark.parametrize(
    ("system", "beside"),
    [("Darwin", []), ("Linux", [CUDA_WHEEL]), ("Linux", [CPU_WHEEL, CUDA_WHEEL])],
    ids=["macOS", "CUDA", "CUDA over CPU"],
)
def test_nothing_is_loaded_where_mlx_uses_a_gpu(make_linker, install_mlx, system, beside, wanted):
    install_mlx(*beside, system=system)
    linker = make_linker(**{"libopenblas.so.0": Library()})
    blas.prefer_openblas(wanted)
    assert linker.asked == []
    assert blas.blas_in_use() is None
    assert blas.blas_notice(wanted) is None


def test_nothing_is_loaded_when_it_is_off(make_linker, install_mlx):
    install_mlx(CPU_WHEEL)
    linker = make_linker(**{"libopenblas.so.0": Library()})
    blas.prefer_openblas("off")
    assert linker.asked == []


@pytest.mark.parametrize("wanted", ["auto", "libopenblas.so.0"])
def test_nothing_is_loaded_once_mlx_has_been_imported(make_linker, install_mlx, monkeypatch, wanted):
    install_mlx(CPU_WHEEL)
    linker = make_linker(**{"libopenblas.so.0": Library()})
    monkeypatch.setitem(sys.modules, "mlx.core", sys)
    blas.prefer_openblas(wanted)
    assert linker.asked == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.so", "cannot load the BLAS missing.so: missing.so: cannot open shared object file"),
        ("other.so", "cannot use other.so as BLAS: it is not OpenBLAS"),
        ("wide.so", "cannot use wide.so as BLAS: it uses 64-bit integers"),
    ],
)
def test_a_named_library_must_be_usable(make_linker, install_mlx, name, message):
    install_mlx(CPU_WHEEL)
    libraries = {"other.so": object(), "wide.so": Library(CONFIG + b" USE64BITINT")}
    linker = make_linker(**libraries)
    with pytest.raises(ConfigError) as caught:
        blas.prefer_openblas(name)
    assert (caught.value.message, caught.value.hint) == (message, blas.OTHER_NAME_HINT)
    assert linker.loaded_for_all == []


@pytest.mark.parametrize("name", blas.OPENBLAS_NAMES)
def test_a_library_that_packages_have_can_be_installed(make_linker, install_mlx, name):
    install_mlx(CPU_WHEEL)
    make_linker()
    with pytest.raises(ConfigError) as caught:
        blas.prefer_openblas(name)
    assert caught.value.hint == blas.OPENBLAS_HINT


@pytest.mark.parametrize(("limit", "threads"), [(None, 8), (2, 2), (16, 8)])
def test_threads_are_bounded_and_never_raised(make_linker, install_mlx, limit, threads):
    install_mlx(CPU_WHEEL)
    library = Library(threads=8)
    make_linker(**{"libopenblas.so.0": library})
    blas.prefer_openblas("auto", most_threads=limit)
    assert library.threads == threads


def test_a_blas_is_named_with_its_version_and_threads(tmp_path):
    file = tmp_path / "libopenblas.so.0"
    assert str(blas.Blas(file, "OpenBLAS 0.3.21", 2)) == "OpenBLAS 0.3.21, 2 threads (libopenblas.so.0)"
    assert str(blas.Blas(file, "OpenBLAS 0.3.21", 1)) == "OpenBLAS 0.3.21, 1 thread (libopenblas.so.0)"
    named = blas.Blas(file, "OpenBLAS 0.3.21", 2, "SkylakeX")
    assert str(named) == "OpenBLAS 0.3.21 for SkylakeX, 2 threads (libopenblas.so.0)"
    assert str(blas.Blas(tmp_path / "libblas.so.3")) == "libblas.so.3"
    assert str(blas.Blas(tmp_path / CPU_WHEEL)) == "the reference BLAS in MLX"


# In separate processes, because MLX is already imported in this one.


def _openblas_name():
    if not (blas.may_matter() and blas.brings_reference_blas()):
        return None
    for name in blas.OPENBLAS_NAMES:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    return None


OPENBLAS = _openblas_name()
with_openblas = pytest.mark.skipif(OPENBLAS is None, reason="needs OpenBLAS and MLX's wheel for the CPU")
with_wheel = pytest.mark.skipif(
    not (blas.may_matter() and blas.brings_reference_blas()), reason="needs MLX's wheel for the CPU"
)
REFERENCE = "blas: the reference BLAS in MLX"


def run_python(code, home, **changes):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment(home, **changes),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@with_openblas
def test_a_run_uses_openblas_and_says_so(speaker, tmp_path):
    arguments = ("generate", "--model", speaker, "-p", "hi", "-v")
    run = run_cli(*arguments, home=tmp_path, OPENBLAS_NUM_THREADS="1")
    assert run.code == 0
    assert re.search(r"\nmetal-gen: blas: OpenBLAS 0\.\S+ for \w+, 1 thread", run.stderr)
    assert f", 1 thread ({OPENBLAS})\n" in run.stderr
    off = run_cli(*arguments, "--blas", "off", home=tmp_path)
    assert f"metal-gen: {REFERENCE}\n" in off.stderr
    assert off.stdout == run.stdout


@with_openblas
def test_the_linker_binds_mlx_to_openblas(tmp_path):
    code = "from metal_gen.device.backend import require_mlx; require_mlx()"
    log = run_python(code, tmp_path, LD_DEBUG="bindings").stderr
    bound = [line for line in log.splitlines() if "/libmlx.so" in line and "`cblas_sgemm'" in line]
    assert bound
    assert all(f"/{OPENBLAS} " in line for line in bound)


@with_openblas
def test_the_same_threads_give_the_same_bits(gambler, tmp_path):
    arguments = ("generate", "--model", gambler, "-p", "hi" * 40, "-n", "8", "--seed", "1", "--logprobs", "5")
    runs = [run_cli(*arguments, home=tmp_path, OPENBLAS_NUM_THREADS="2") for _ in range(2)]
    assert runs[0] == runs[1]
    assert "model_logprob" in runs[0].stderr


@with_openblas
def test_a_library_that_comes_after_mlx_is_reported_as_such(speaker, tmp_path):
    code = (
        "import ctypes, mlx.core, metal_gen\n"
        "from metal_gen.device.blas import blas_in_use\n"
        f"model = metal_gen.load({speaker!r}, blas={OPENBLAS!r})\n"
        f"ctypes.CDLL({OPENBLAS!r}, mode=ctypes.RTLD_GLOBAL)\n"
        "print(blas_in_use(), *model.notices, sep='\\n')"
    )
    assert run_python(code, tmp_path).stdout.splitlines() == [
        "the reference BLAS in MLX",
        f"blas = {OPENBLAS!r} has no effect: MLX is already bound to the reference BLAS in MLX",
    ]


@with_openblas
def test_the_library_uses_openblas_too(speaker, tmp_path):
    code = (
        "import metal_gen\n"
        f"model = metal_gen.load({speaker!r}, blas={OPENBLAS!r})\n"
        "from metal_gen.device.blas import blas_in_use\n"
        "print(blas_in_use().version, model.notices)"
    )
    assert run_python(code, tmp_path).stdout.startswith("OpenBLAS 0.")
    assert run_python(code, tmp_path).stdout.endswith(" ()\n")


@with_wheel
def test_a_run_without_openblas_says_how_to_get_it(speaker, tmp_path):
    code = (
        "import runpy, sys, metal_gen.device.blas\n"
        "metal_gen.device.blas.OPENBLAS_NAMES = ()\n"
        f"sys.argv = ['metal-gen', 'generate', '--model', {speaker!r}, '-p', 'hi', '-v']\n"
        "runpy.run_module('metal_gen', run_name='__main__')"
    )
    stderr = run_python(code, tmp_path).stderr
    assert f"metal-gen: {REFERENCE}; OpenBLAS is many times faster: apt install libopenblas0" in stderr


@with_wheel
@pytest.mark.parametrize("way", ["flag", "variable", "file"])
def test_a_library_that_is_not_there_ends_the_run(speaker, tmp_path, way):
    (tmp_path / "config" / "metal-gen").mkdir(parents=True)
    if way == "file":
        file = tmp_path / "config" / "metal-gen" / "config.toml"
        file.write_text('[cpu]\nblas = "/no/lib.so"\n', encoding="utf-8")
    more = ("--blas", "/no/lib.so") if way == "flag" else ()
    variables = {"METAL_GEN_BLAS": "/no/lib.so"} if way == "variable" else {}
    run = run_cli("generate", "--model", speaker, "-p", "hi", *more, home=tmp_path, **variables)
    assert (run.code, run.stdout) == (3, b"")
    assert run.stderr.startswith("metal-gen: cannot load the BLAS /no/lib.so: ")
    assert "hint: leave blas out, or name an OpenBLAS, such as libopenblas.so.0" in run.stderr


@with_openblas
@pytest.mark.parametrize(("wanted", "dtype"), [("auto", "float32"), ("off", "bfloat16")])
def test_bfloat16_is_kept_with_the_reference_blas_alone(tmp_path, wanted, dtype):
    run = run_cli("generate", "-p", "hi", "-n", "1", "-v", "--blas", wanted, home=tmp_path)
    assert f"CPU; computing in {dtype}\n" in run.stderr
