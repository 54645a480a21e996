"""The plan of the layers that a GPU has in its queue is what has been measured on an NVIDIA H200."""

import pytest

from metal_gen.generation.memory import queued_layers, working
from metal_gen.generation.memory.working import WorkingMemory
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.experts import groups
from scripts.random_checkpoint.shapes import published_config

CAPACITY, CHUNK = 8192, 2048
# Model, layers, slots, GiB of weights and cache, and of the peak with prompts that fill the cache.
MEASURED = [
    ("qwen3-0.6b", None, 1, 1.985, 2.552),
    ("qwen3-0.6b in 4 bits", None, 1, 1.187, 1.754),
    ("qwen3-4b", None, 1, 8.617, 9.751),
    ("qwen3-4b in 4 bits", None, 1, 3.233, 4.367),
    ("qwen3-8b", None, 1, 16.381, 17.784),
    ("qwen3-30b-a3b", 12, 1, 15.28, 16.88),
    ("qwen3.5-0.8b", None, 1, 1.568, 2.684),
    ("qwen3.5-0.8b in 4 bits", None, 1, 0.562, 1.649),
    ("qwen3.5-4b", None, 1, 8.276, 9.851),
    ("qwen3.5-4b", None, 8, 10.79, 11.808),
    ("qwen3.5-35b-a3b", 12, 1, 20.78, 23.10),
    ("qwen3.5-35b-a3b", 12, 8, 21.42, 23.169),
]


@pytest.fixture(autouse=True)
def _on_an_h200(monkeypatch):
    for module in (working, groups):
        monkeypatch.setattr(module, "runs_on_cpu", lambda: False)
    monkeypatch.setattr(working, "product_scratch_bytes", lambda: 32 << 20)
    monkeypatch.setattr(working, "prompt_stride", lambda: 256)
    monkeypatch.setattr(queued_layers, "runs_on_cuda", lambda: True)


@pytest.mark.parametrize(("name", "layers", "slots", "kept", "peak"), MEASURED)
def test_the_plan_is_within_a_twentieth_of_the_measured_peak(name, layers, slots, kept, peak):
    memory = WorkingMemory(
        model=ModelConfig.from_hf(published_config(name.partition(" ")[0], layers=layers)),
        dtype="bfloat16",
        tokens=CHUNK + slots - 1,
        capacity=CAPACITY,
        texts=slots,
        has_products_apart=False,
        has_head_norms=True,
        drawn_rows=slots,
    )
    assert 0.95 < peak / (kept + memory.nbytes / 2**30) < 1.02


def test_without_cuda_the_limit_alone_counts(monkeypatch):
    sizes = {"attention_bytes": 5 << 20, "usual_bytes": 3 << 20, "scores_bytes": 1 << 20, "number_bytes": 2}
    on_cuda = queued_layers.QueuedLayers(**sizes).peak_bytes
    monkeypatch.setattr(queued_layers, "runs_on_cuda", lambda: False)
    elsewhere = queued_layers.QueuedLayers(**sizes)
    assert elsewhere.limit_bytes == 12 << 20
    assert (elsewhere.peak_bytes, on_cuda) == (13 << 20, 17 << 20)
