"""The gated delta rule: every way to compute it gives the same, and a kernel that does not is left alone."""

import mlx.core as mx
import numpy as np
import pytest
from cpp_kernel import CppKernels, needs_compiler
from failing_kernels import REFUSED, refuse
from on_device import cpu_only

from metal_gen.models.config.linear_attention import LinearAttentionConfig
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.linear_attention import delta_rule as plain
from metal_gen.models.linear_attention import joined, kernel, rules
from metal_gen.models.linear_attention.delta_rule import delta_rule, inverse_by_blocks

pytestmark = pytest.mark.metal


def sizes(key=32, value=8, key_heads=2, value_heads=4):
    return LinearAttentionConfig(
        linear_num_key_heads=key_heads,
        linear_num_value_heads=value_heads,
        linear_key_head_dim=key,
        linear_value_head_dim=value,
        linear_conv_kernel_dim=4,
    )


def random(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def inputs(length, batch=2, alike=False):
    """For heads of `sizes()`, and with keys that are all the same on request."""
    keys = random(batch, 1 if alike else length, 2, 32, seed=1)
    keys = mx.broadcast_to(keys / mx.linalg.norm(keys, axis=-1, keepdims=True), (batch, length, 2, 32))
    return (
        random(batch, length, 2, 32) / 8,
        mx.contiguous(keys),
        random(batch, length, 4, 8, seed=2),
        -mx.abs(random(batch, length, 4, seed=3)) * (0.01 if alike else 1),
        mx.sigmoid(random(batch, length, 4, seed=4) + (4 if alike else 0)),
        random(batch, 4, 8, 32, seed=5),
    )


def assert_close(found, expected, share=2e-5):
    for a, b in zip(found, expected, strict=True):
        a, b = np.array(a), np.array(b)
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= share * np.abs(b).max()


def one_after_another(arrays):
    *of_tokens, memory = arrays
    outputs = []
    for place in range(of_tokens[0].shape[1]):
        output, memory = delta_rule(*(array[:, place : place + 1] for array in of_tokens), memory)
        outputs.append(output)
    return mx.concatenate(outputs, axis=1), memory


@pytest.mark.parametrize("on_gpu", [False, True], ids=["CPU", "as on a GPU"])
@pytest.mark.parametrize("alike", [False, True], ids=["keys", "the same key again and again"])
@pytest.mark.parametrize("length", [2, 15, 16, 17, 63, 64, 65, 130])
def test_chunks_are_one_token_after_another(monkeypatch, length, alike, on_gpu):
    arrays = inputs(length, alike=alike)
    expected = one_after_another(arrays)
    if on_gpu:
        monkeypatch.setattr(plain, "runs_on_cpu", lambda: False)
        monkeypatch.delattr(mx.linalg, "tri_inv")
    assert_close(delta_rule(*arrays), expected)


def test_the_inverse_by_blocks_is_an_inverse():
    below = mx.tril(random(3, 50, 50), -1) * 0.3
    product = (mx.eye(50) + below) @ inverse_by_blocks(below)
    assert mx.abs(product - mx.eye(50)).max().item() < 1e-4


@pytest.mark.skipif(not hasattr(mx.fast, "gated_delta_update"), reason="MLX has it from 0.32.3 on")
@pytest.mark.parametrize("length", [1, 5, 64])
def test_mlx_computes_the_same(length):
    arrays = inputs(length)
    assert_close(rules.mlx_rule(*arrays), delta_rule(*arrays))


@needs_compiler
def test_the_body_of_the_kernel_computes_the_rule(programs, monkeypatch):
    monkeypatch.setattr(Code, "__call__", CppKernels(programs).as_method)
    arrays = inputs(6)
    assert_close(kernel.kernel_rule(*arrays), delta_rule(*arrays))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Kernels are chosen as on a GPU that does not run here: what they compute is substituted."""
    monkeypatch.setattr(rules, "runs_on_cpu", lambda: False)
    rules._chosen.cache_clear()
    yield monkeypatch
    rules._chosen.cache_clear()


@cpu_only
def test_a_cpu_takes_plain_operations():
    chosen = rules.rule_for(sizes())
    assert (chosen.compute, chosen.refused) == (delta_rule, ())


@pytest.mark.parametrize("metal", [True, False])
def test_a_kernel_that_computes_the_rule_is_used(as_on_a_gpu, metal):
    as_on_a_gpu.setattr(mx.metal, "is_available", lambda: metal)
    as_on_a_gpu.setattr(rules, "kernel_rule", delta_rule)
    as_on_a_gpu.setattr(rules, "mlx_rule", delta_rule)
    as_on_a_gpu.setattr(mx.fast, "gated_delta_update", None, raising=False)
    chosen = rules.rule_for(sizes())
    assert chosen.name == ("MLX's kernel" if metal else "a kernel of its own")
    assert chosen.refused == ()


def wrong(*arrays):
    outputs, memory = delta_rule(*arrays)
    return outputs, memory * 1.01


def not_finite(*arrays):
    outputs, memory = delta_rule(*arrays)
    return outputs * mx.nan, memory


@pytest.mark.parametrize(
    ("kernel_rule", "reason"),
    [
        (wrong, "its numbers differ by"),
        (not_finite, "its numbers differ by nan"),
        (refuse, REFUSED),
        (lambda *arrays: delta_rule(*arrays)[::-1], "it gives"),
    ],
)
def test_a_kernel_that_does_not_is_left_alone(as_on_a_gpu, kernel_rule, reason):
    as_on_a_gpu.setattr(rules, "kernel_rule", kernel_rule)
    chosen = rules.rule_for(sizes())
    assert chosen.compute is delta_rule
    assert len(chosen.refused) == 1
    assert reason in chosen.refused[0]
    assert "much more" not in str(chosen)
    assert str(chosen).startswith("plain operations; not a kernel of its own: ")


@cpu_only
def test_a_machine_without_a_gpu_refuses_the_kernel_and_goes_on(as_on_a_gpu):
    """MLX's own refusal of a kernel here."""
    chosen = rules.rule_for(sizes())
    assert chosen.compute is delta_rule
    assert chosen.refused[0].startswith("a kernel of its own: ")


def test_heads_that_the_kernel_is_not_made_for_take_plain_operations(as_on_a_gpu):
    as_on_a_gpu.setattr(mx.metal, "is_available", lambda: False)
    chosen = rules.rule_for(sizes(key=48))
    assert (chosen.compute, chosen.refused) == (delta_rule, ())


def test_joined_operations_are_the_plain_ones(monkeypatch):
    tokens, taps = random(2, 7, 6), random(4, 6, seed=1)
    heads, gates = random(5, 8), random(5, 8, seed=2)
    decay, beta = random(5, 4, seed=3), random(5, 4, seed=4)

    def all_of_them():
        return [
            joined.convolved(tokens, taps),
            joined.gated(heads, gates),
            *joined.pace(decay, mx.ones(4), -mx.ones(4), beta),
        ]

    expected = all_of_them()
    monkeypatch.setattr(joined, "runs_on_cpu", lambda: False)
    mx.disable_compile()  # On a CPU it calls a C++ compiler.
    try:
        assert_close(all_of_them(), expected)
    finally:
        mx.enable_compile()
