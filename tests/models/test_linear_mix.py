"""The kernel for all between the projections of linear attention: its numbers, and when it is not used."""

import mlx.core as mx
import pytest
from cpp_kernel import CppKernels, needs_compiler
from on_device import cpu_only

from metal_gen.device_checks import models as whole_models
from metal_gen.models.config.linear_attention import LinearAttentionConfig
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.linear_attention import mixing
from metal_gen.models.linear_attention.mix import Group, is_supported, joined_weights, mix, whole_head

pytestmark = pytest.mark.metal


def sizes(key=64, value=64, key_heads=2, value_heads=4, taps=4):
    return LinearAttentionConfig(
        linear_num_key_heads=key_heads,
        linear_num_value_heads=value_heads,
        linear_key_head_dim=key,
        linear_value_head_dim=value,
        linear_conv_kernel_dim=taps,
    )


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def as_on_a_gpu(monkeypatch, tmp_path, programs):
    """Kernels are tried as on a GPU, and run as C++."""
    monkeypatch.setattr(mixing, "runs_on_cpu", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels = CppKernels(programs)
    monkeypatch.setattr(Code, "__call__", kernels.as_method)
    mixing._chosen.cache_clear()
    yield kernels
    mixing._chosen.cache_clear()


def share_of_largest(found, expected):
    return [
        (mx.abs(a.astype(mx.float32) - b.astype(mx.float32)).max() / mx.abs(b).max()).item()
        for a, b in zip(found, expected, strict=True)
    ]


@needs_compiler
@pytest.mark.parametrize("by_key_head", [False, True], ids=["in turn", "by key head"])
@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 64, 65])
@pytest.mark.parametrize("heads", [sizes(), sizes(128, 128, 1, 2)], ids=["heads of 64", "heads of 128"])
def test_the_kernel_computes_what_plain_operations_do(as_on_a_gpu, heads, length, by_key_head):
    trial = mixing.Trial(heads, mx.float32, mx.float32, length, by_key_head=by_key_head)
    outputs, conv, memory = share_of_largest(trial.by_kernel(), trial.on_cpu())
    assert conv == 0
    assert max(outputs, memory) < 5e-6
    assert as_on_a_gpu.names == ["mix"] * (1 if length <= 16 else 2)
