"""The plan of the layers that a GPU has in its queue is what has been measured on an NVIDIA H200."""

import pytest

from metal_gen.generation.memory import queued_layers, working
from metal_gen.generation.memory.working import WorkingMemory
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.experts import groups
from scripts.random_checkpoint.shapes import published_config

CAPACITY, CHUNK, BFLOAT16, WORD = 8192, 2048, 2, 4
# Model, layers, bytes of an element, slots, GiB of weights and cache, and of the peak with prompts that fill
# the cache.
MEASURED = [
    ("qwen3-0.6b", None, BFLOAT16, 1, 1.11, 0.875, 2.552),
    ("qwen3-0.6b", None, WORD, 1, 0.312, 0.875, 1.754),
    ("qwen3-4b", None, BFLOAT16, 1, 7.492, 1.125, 9.751),
    ("qwen3-4b", None, WORD, 1, 2.108, 1.125, 4.367),
    ("qwen3-8b", None, BFLOAT16, 1, 15.256, 1.125, 17.784),
    ("qwen3-8b", None, WORD, 1, 4.288, 1.125, 6.87),
    ("qwen3-30b-a3b", 12, BFLOAT16, 1, 15.08, 0.2, 16.88),
    ("qwen3.5-0.8b", None, BFLOAT16, 1, 1.401, 0.167, 2.684),
    ("qwen3.5-0.8b", None, WORD, 1, 0.395, 0.167, 1.649),
    ("qwen3.5-4b", None, BFLOAT16, 1, 7.834, 0.442, 9.851),
    ("qwen3.5-4b", None, WORD, 1, 2.204, 0.442, 4.83),
    ("qwen3.5-4b", None, BFLOAT16, 8, 7.834, 2.96, 11.82),
    ("qwen3.5-35b-a3b", 12, BFLOAT16, 1, 20.69, 0.09, 23.10),
    ("qwen3.5-35b-a3b", 12, BFLOAT16, 8, 20.69, 0.73, 22.841),
]


@pytest.fixture(autouse=True)
def _on_an_h200(monkeypatch):
    for module in (working, groups):
        monkeypatch.setattr(module, "runs_on_cpu", lambda: False)
    monkeypatch.setattr(working, "product_scratch_bytes", lambda: 32 << 20)
    monkeypatch.setattr(working, "prompt_stride", lambda: 256)
    for module in (working, groups, queued_layers):
        monkeypatch.setattr(module, "runs_on_cuda", lambda: True)


@pytest.mark.parametrize(("name", "layers", "element_bytes", "slots", "weights", "cache", "peak"), MEASURED)
def test_the_plan_is_within_a_twentieth_of_the_measured_peak(
    name, layers, element_bytes, slots, weights, cache, peak
):
    model = ModelConfig.from_hf(published_config(name, layers=layers))
    memory = WorkingMemory(
        model=model,
        dtype="bfloat16",
        tokens=CHUNK + slots - 1,
        capacity=CAPACITY,
        texts=slots,
        has_products_apart=False,
        has_head_norms=True,
        drawn_rows=slots,
        weights_elements=int(weights * 2**30) // element_bytes // model.num_hidden_layers,
    )
    assert 0.95 < peak / (weights + cache + memory.nbytes / 2**30) < 1.02


def test_without_cuda_the_limit_alone_counts(monkeypatch):
    sizes = {"attention_bytes": 5 << 20, "usual_bytes": 3 << 20, "scores_bytes": 1 << 20}
    queued = queued_layers.QueuedLayers(**sizes, read_elements=1 << 20)
    assert (queued.limit_bytes, queued.peak_bytes) == (12 << 20, 17 << 20)
    monkeypatch.setattr(queued_layers, "runs_on_cuda", lambda: False)
    assert queued.peak_bytes == 13 << 20


@pytest.mark.parametrize(("read", "layers"), [(1, 5), (250 << 20, 4), (251 << 20, 4), (1001 << 20, 1)])
def test_what_is_handed_over_together_depends_on_what_it_reads(read, layers):
    sizes = {"attention_bytes": 5 << 20, "usual_bytes": 5 << 20, "scores_bytes": 0}
    queued = queued_layers.QueuedLayers(**sizes, read_elements=read)
    assert queued.peak_bytes == max(4, layers) * (5 << 20)
