"""Tests the script that plots a benchmark's report."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
from cli_process import ROOT, clean_environment

from metal_gen.bench.measurement import METAL_GEN, MLX_LM, Measurement, Unit
from metal_gen.bench.report import BenchReport

pytestmark = pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib")

SCRIPT = ROOT / "scripts" / "plot_bench.py"
TPS, MS = Unit.TOKENS_PER_SECOND, Unit.MILLISECONDS


def sample(*, compare):
    """Return a report with everything that is plotted."""
    figures = []
    for program in (METAL_GEN, MLX_LM) if compare else (METAL_GEN,):
        for size in (128, 512):
            depth, prompt = {"depth": size}, {"prompt_tokens": size}
            figures.append(Measurement("decode", "decode_tps", TPS, program, depth, 200.0, [90.0, 99.0]))
            figures.append(Measurement("prefill", "prefill_tps", TPS, program, prompt, None, [9e3, 8e3]))
        full = {"prompt_tokens": 512}
        figures.append(Measurement("memory", "peak_memory_bytes", Unit.BYTES, program, full, None, [9e8]))
    for part in ("", "weights_", "cache_", "working_"):
        figures.append(Measurement("memory", f"planned_{part}bytes", Unit.BYTES, values=[3e8]))
    figures[-4] = Measurement("memory", "planned_bytes", Unit.BYTES, METAL_GEN, full, None, [9.5e8])
    for size in (512, 2048):
        where = {"depth": 256, "capacity": size}
        figures.append(Measurement("capacity", "decode_tps", TPS, METAL_GEN, where, 200.0, [95.0]))
        for name, unit in (("cached_ms", MS), ("uncached_ms", MS), ("speedup_ratio", Unit.RATIO)):
            figures.append(Measurement("uncached", name, unit, METAL_GEN, {"length": size}, None, [7.0]))
    environment = {"device": "a machine", "cpu_count": 2, "metal_gen": "1", "mlx": "1", "mlx_lm": "1"}
    setup = {"model": "m", "dtype": "float32", "compare": MLX_LM if compare else None, "repeats": 2}
    return BenchReport(environment, setup, figures, complete=True).to_dict()


def plot(folder, document, *arguments):
    report = folder / "bench.json"
    report.write_text(document if isinstance(document, str) else json.dumps(document))
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(report), *arguments],
        env=clean_environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("compare", [True, False], ids=["compared", "alone"])
def test_everything_is_drawn_as_svg(tmp_path, compare):
    done = plot(tmp_path, sample(compare=compare), "-o", "all.svg")
    assert done.returncode == 0, done.stderr
    picture = (tmp_path / "all.svg").read_text()
    assert picture.startswith("<?xml")
    for words in ("Decode by depth", "Decode by capacity", "Prefill by length", "Peak memory"):
        assert words in picture
    assert ("mlx-lm" in picture) == compare


def test_a_choice_is_drawn_as_png(tmp_path):
    done = plot(tmp_path, sample(compare=False), "-o", "two.png", "--only", "decode,uncached")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("document", "arguments", "message"),
    [
        ("{}", (), "is not a report of metal-gen bench"),
        ("[", (), "is not a report of metal-gen bench"),
        ("[]", (), "is not a report of metal-gen bench"),
        (None, ("-o", "x.gif"), "must end in .svg or .png"),
        (None, ("-o", "/no/such/x.svg"), "cannot be written"),
        (None, ("--only", "speed"), "has nothing about speed"),
    ],
)
def test_a_report_that_cannot_be_plotted_gets_a_sentence(tmp_path, document, arguments, message):
    done = plot(tmp_path, document or sample(compare=False), *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
