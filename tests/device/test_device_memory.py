"""Numbers that kernels are told lie in memory of the GPU."""

from functools import partial

import mlx.core as mx
import pytest
from cpp_kernel import CppKernels, kernels_as_on_a_gpu, needs_compiler
from on_device import cpu_only

from metal_gen.device import device_memory
from metal_gen.device.device_memory import in_device_memory
from metal_gen.device_checks import models as whole_models
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels import attend, attention_trial
from metal_gen.models.linear_attention import mix, mixing

# MLX for CUDA keeps arrays of so many bytes in memory of the host.
MOST_ON_HOST = 8


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Arrays are made as on an NVIDIA GPU."""
    kept = (attend._job, mix._counts, mix._all_used)
    for each in kept:
        each.cache_clear()
    monkeypatch.setattr(device_memory, "runs_on_cuda", lambda: True)
    yield
    for each in kept:
        each.cache_clear()


@pytest.mark.quick
@pytest.mark.parametrize("count", [1, 2, 8])
def test_few_numbers_get_an_array_that_the_gpu_owns(as_on_cuda, count):
    numbers = mx.arange(count, dtype=mx.int32)
    found = in_device_memory(numbers)
    assert found.nbytes > MOST_ON_HOST
    assert found.dtype == mx.int32
    assert found[:count].tolist() == numbers.tolist()
    assert not found[count:].any()


@pytest.mark.quick
@cpu_only
def test_nothing_is_copied_where_a_gpu_has_no_memory_of_its_own():
    numbers = mx.array([1.0])
    assert in_device_memory(numbers) is numbers


@needs_compiler
@pytest.mark.parametrize(
    ("name", "run", "kernels"),
    [
        ("qwen3", whole_models._decoded, {"attend"}),
        ("qwen3_5", whole_models._decoded, {"attend", "mix"}),
        ("qwen3_5", whole_models._rows, {"attend", "mix"}),
        ("qwen3", partial(whole_models._slots, compiles=True), {"attend"}),
    ],
    ids=["step", "step of a hybrid", "rows", "slots"],
)
def test_no_kernel_of_a_model_reads_memory_of_the_host(
    as_on_cuda, monkeypatch, tmp_path, programs, name, run, kernels
):
    found = {}
    run_kernel = CppKernels._run

    def note(self, code, inputs, *arguments, **options):
        given = zip(code.inputs, inputs, strict=True)
        # Without stretches, parts only say what comes first.
        sizes = [array.nbytes for name, array in given if name != "parts" or array.ndim > 1]
        found.setdefault(code.name, []).extend(sizes)
        return run_kernel(self, code, inputs, *arguments, **options)

    monkeypatch.setattr(CppKernels, "_run", note)
    as_on_a_gpu = partial(kernels_as_on_a_gpu, monkeypatch=monkeypatch, tmp_path=tmp_path, programs=programs)
    mx.disable_compile()  # What MLX would compile runs as it is.
    try:
        with as_on_a_gpu(attention_trial), as_on_a_gpu(mixing):
            config = ModelConfig.from_hf({**whole_models.BASE, **whole_models.MODELS[name]})
            family = whole_models._Family(config)
            for _ in run(family, family.model_by_kernel):
                pass
    finally:
        mx.enable_compile()
    assert found.keys() == kernels
    assert min(map(min, found.values())) > MOST_ON_HOST
