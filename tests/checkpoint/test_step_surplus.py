"""How much larger than its reading the arrays of a step are, estimated without MLX."""

import json
import os
import subprocess
import sys

import pytest
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.step_surplus import step_surplus
from metal_gen.cli.input import model_preparation
from metal_gen.config.settings import Settings
from metal_gen.device import backend
from metal_gen.device.command_buffers import ELEMENTS, OPERATIONS
from metal_gen.errors import BackendError
from metal_gen.generation.memory import capacity
from metal_gen.generation.memory.planning import plan_memory

pytest_plugins = ("fixtures_cli",)

WIDE = {"hidden_size": 128, "intermediate_size": 512}


@pytest.mark.parametrize(
    ("arch", "changes"),
    [
        ("qwen3", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3_moe", {"num_experts": 16, "moe_intermediate_size": 256}),
        ("qwen2_moe", {"num_experts": 8, "decoder_sparse_step": 2}),
    ],
)
@pytest.mark.parametrize("tokens", [64, 4096])
def test_it_agrees_with_the_plan(tmp_path, arch, changes, tokens):
    folder = write_checkpoint(tmp_path, tiny_config(arch, **WIDE, **changes))
    settings = Settings(model=str(folder), max_seq_len=tokens, model_dtype="float32")
    plan = plan_memory(settings, Checkpoint(folder))
    expected = (plan.weights_bytes + plan.cache.nbytes) / plan.weights_read_bytes
    assert step_surplus(settings, tokens=1) == pytest.approx(expected, rel=0.05)


def test_a_cache_counts_more_beside_quantized_weights(tmp_path):
    folder = str(write_checkpoint(tmp_path, tiny_config("qwen3", **WIDE)))
    plain, packed = (Settings(model=folder, quantize=bits) for bits in (None, "4"))
    more = step_surplus(packed, tokens=1000) - 1
    assert more == pytest.approx(8 * (step_surplus(plain, tokens=1000) - 1))
    assert step_surplus(plain, tokens=500, slots=2) == step_surplus(plain, tokens=1000)
    config = json.loads((tmp_path / "config.json").read_text())
    for quantization, bits in (({"bits": 8}, 8), ({"quant_method": "fp8"}, 4), ("nonsense", 4)):
        (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
        assert (step_surplus(plain, tokens=1000) - 1) * bits == pytest.approx(more * 4)


@pytest.mark.parametrize("model", [None, "./nowhere", "nobody/nothing", "not a name!"])
def test_what_cannot_be_read_yet_changes_nothing(run_here, model):
    assert step_surplus(Settings(model=model), tokens=10**6) == 1


def test_a_damaged_config_changes_nothing(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"')
    assert step_surplus(Settings(model=str(tmp_path)), tokens=10**6) == 1


def test_it_needs_no_mlx():
    code = "import sys, metal_gen.checkpoint.step_surplus; sys.exit('mlx.core' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_usual_sizes_are_those_of_the_cache():
    assert model_preparation.USUAL_TOKENS == capacity.USUAL_TOKENS
    assert model_preparation.CHAT_TOKENS == capacity.CHAT_TOKENS


def test_variables_are_set_before_mlx_is_asked_for_anything(run_here, tmp_path, monkeypatch):
    """A fake Mac: MLX reads them when it creates its device."""
    folder = write_checkpoint(tmp_path / "model", tiny_config("qwen3", **WIDE))
    seen = []

    def refuse(blas):
        seen.append([os.environ.get(name) for name in (ELEMENTS, OPERATIONS)])
        raise BackendError("enough", "stop here")

    for name in (ELEMENTS, OPERATIONS):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    monkeypatch.setattr(backend, "require_mlx", refuse)
    monkeypatch.setattr(model_preparation.platform, "system", lambda: "Darwin")
    run_here("chat", "-m", folder, "--max-seq-len", "4096")
    assert seen[0][0] is not None
    assert seen[0][1] == "30"
