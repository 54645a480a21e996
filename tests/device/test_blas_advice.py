"""Tests the advice on a slow BLAS."""

from pathlib import Path

import pytest
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.config.settings import Settings
from metal_gen.device import blas_advice
from metal_gen.device.blas import WHEEL_LIBRARIES, Blas
from metal_gen.generation import model_notices
from metal_gen.generation.loading import prepare

REFERENCE = Blas(Path(WHEEL_LIBRARIES) / "libblas.so.3")
OLD, NEW = "fpu sse2 avx avx2", "fpu sse2 avx avx2 avx512f"


def openblas(core):
    return Blas(Path("libopenblas.so.0"), "OpenBLAS 0.3.21", 2, core)


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Imitate a processor with these instructions."""

    def processor(flags):
        (tmp_path / "cpuinfo").write_text(
            f"processor\t: 0\nflags\t\t: {flags}\nbugs\t: none\n", encoding="ascii"
        )
        monkeypatch.setattr(blas_advice, "CPU_INFO", tmp_path / "cpuinfo")

    monkeypatch.delenv(blas_advice.CORE_VARIABLE, raising=False)
    return processor


@pytest.mark.parametrize(
    ("flags", "core", "better"),
    [
        (NEW, "Prescott", "SkylakeX"),
        (NEW, "Haswell", "SkylakeX"),
        (NEW, "Zen", "SkylakeX"),
        (NEW, "SkylakeX", None),
        (NEW, "SapphireRapids", None),
        (OLD, "Prescott", "Haswell"),
        (OLD, "Haswell", None),
        (OLD, "Zen", None),
        ("fpu sse2", "Prescott", None),
        (NEW, None, None),
    ],
)
def test_kernels_for_an_older_processor_are_found(processor, monkeypatch, flags, core, better):
    processor(flags)
    advice = blas_advice.blas_advice(openblas(core))
    assert (advice is None) is (better is None)
    if better is not None:
        assert f"({core}): set OPENBLAS_CORETYPE={better}, or install a newer OpenBLAS" in advice
        monkeypatch.setenv(blas_advice.CORE_VARIABLE, core)
        assert blas_advice.blas_advice(openblas(core)) is None, "somebody has chosen it"


def test_an_unknown_processor_gets_no_advice(processor, monkeypatch, tmp_path):
    processor("")
    assert blas_advice.blas_advice(openblas("Prescott")) is None
    monkeypatch.setattr(blas_advice, "CPU_INFO", tmp_path / "missing")
    assert blas_advice.blas_advice(openblas("Prescott")) is None


def test_openblas_is_proposed_unless_it_is_not_wanted():
    assert "apt install libopenblas0-pthread" in blas_advice.blas_advice(REFERENCE)
    assert blas_advice.blas_advice(REFERENCE, "off") is None


@pytest.mark.parametrize(
    ("parameters", "on_cpu", "blas", "settings", "said"),
    [
        (50_000, True, REFERENCE, {}, "with the reference BLAS in MLX: OpenBLAS is many times faster"),
        (50_000, True, REFERENCE, {"blas": "off"}, None),
        (50_000, True, openblas("Prescott"), {}, "for Prescott, 2 threads (libopenblas.so.0): it mistakes"),
        (50_000, True, openblas("SkylakeX"), {}, None),
        (50_000, True, None, {}, None),
        (50_000, False, REFERENCE, {}, None),
        (50_000, True, REFERENCE, {"quantize": "4g32"}, None),
        (100_000_000, True, REFERENCE, {}, None),
    ],
)
def test_a_large_model_gets_the_advice_once(
    processor, monkeypatch, tmp_path, parameters, on_cpu, blas, settings, said
):
    processor(NEW)
    monkeypatch.setattr(model_notices, "SLOW_PARAMETERS", parameters)
    monkeypatch.setattr(model_notices, "runs_on_cpu", lambda: on_cpu)
    monkeypatch.setattr(model_notices, "blas_in_use", lambda: blas)
    folder = write_checkpoint(tmp_path / "model", tiny_config("qwen3", vocab_size=2048))
    notices = prepare(Settings(model=str(folder), **settings)).notices
    found = [notice for notice in notices if "will be slow" in notice]
    assert len(found) == (said is not None)
    if said is not None:
        assert said in found[0]
