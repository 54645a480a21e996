"""Tests the device checks: all pass on a correct device, and each names what differs on another."""

import math

import mlx.core as mx
import pytest

from metal_gen.device.backend import on_cpu
from metal_gen.device.buffer_cache import limit_buffer_cache
from metal_gen.device_checks.attention import attention_checks
from metal_gen.device_checks.check import Check, random_numbers, run_check
from metal_gen.device_checks.every import CACHE_BYTES, every_check, run_every_check
from metal_gen.device_checks.matrices import PACKINGS, PACKINGS_OF_CUDA_PROMPTS, PROMPT_ROWS, matrix_checks
from metal_gen.device_checks.models import MODELS, model_checks
from metal_gen.device_checks.samplers import sampler_checks
from metal_gen.models.linear_attention import gated_delta_net
from metal_gen.models.linear_attention.delta_rule import delta_rule
from metal_gen.models.linear_attention.rules import ChosenRule
from metal_gen.models.matrices.quantized import QuantizedMatrix
from metal_gen.sampling.sampler import Sampler

FEW = 16


@pytest.mark.metal
@pytest.mark.parametrize("check", list(every_check()), ids=lambda check: check.name)
def test_this_device_passes_all_checks(check):
    result = run_check(check)
    assert result.error is None
    assert result.passed, f"{result.difference} of {result.tolerance}"


@pytest.mark.quick
def test_names_tell_checks_apart():
    names = [check.name for check in every_check()]
    assert len(set(names)) == len(names)


def failing(checks):
    return [result.name for result in map(run_check, checks) if not result.passed]


@pytest.mark.quick
def test_wrong_attention_is_named(monkeypatch):
    right = mx.fast.scaled_dot_product_attention

    def wrong(queries, keys, values, **options):
        """Compute attention without the last key of long caches, unless they are masked."""
        if keys.shape[2] > 1000 and not isinstance(options["mask"], mx.array):
            keys, values = keys[:, :, :-1] * 1.5, values[:, :, :-1]
        return right(queries, keys, values, **options)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", wrong)
    checks = [check for check in attention_checks() if "heads of 64" in check.name]
    names = failing(checks)
    assert names == [
        check.name
        for check in checks
        if "over 1" in check.name or "over 4" in check.name or "over 8" in check.name
        if "mask" not in check.name
    ]
    assert len(names) == 4


def test_a_wrong_packing_is_named(monkeypatch):
    right = QuantizedMatrix.times

    def wrong(self, rows, bias=None):
        factor = 1.1 if self.packing.bits == 5 else 1
        return right(self, rows, bias) * factor

    monkeypatch.setattr(QuantizedMatrix, "times", wrong)
    assert failing(matrix_checks()) == [f"matrix, 5 bits in groups of {size}" for size in (32, 64, 128)]


def test_wrong_linear_attention_is_named(monkeypatch):
    def wrong(queries, keys, values, decay, beta, memory):
        """Compute a faster decay for single tokens."""
        return delta_rule(queries, keys, values, decay - (0.1 if keys.shape[1] == 1 else 0), beta, memory)

    monkeypatch.setattr(gated_delta_net, "rule_for", lambda sizes, by_kernel: ChosenRule(wrong, "wrong"))
    names = [f"{name}: prefill and decode" for name in ("qwen3", "qwen3_next", "qwen3_5")]
    decoded = [check for check in model_checks() if check.name in names]
    assert failing(decoded) == ["qwen3_next: prefill and decode", "qwen3_5: prefill and decode"]


@pytest.mark.quick
def test_a_wrong_draw_is_named(monkeypatch):
    right = Sampler.draw
    times = []

    def wrong(self, logits, index):
        times.append(index)
        return right(self, logits[:, ::-1] if len(times) == 5 else logits, index)

    monkeypatch.setattr(Sampler, "draw", wrong)
    assert failing(sampler_checks()) == ["sampler: greedy"]


def test_numbers_that_are_not_finite_do_not_pass():
    result = run_check(Check("a check", 1.0, lambda: [(mx.array([math.nan, 1.0]), mx.ones(2))]))
    assert not result.passed
    assert math.isnan(result.difference)


def test_errors_of_the_device_are_part_of_the_result():
    def refuse():
        raise RuntimeError("[metal::kernel] no such function")

    result = run_check(Check("a check", 1.0, refuse))
    assert not result.passed
    assert result.error == "RuntimeError: [metal::kernel] no such function"


def test_random_numbers_are_the_same_whatever_the_device_is():
    with on_cpu():
        expected = random_numbers(3, 4, 5)
    assert mx.array_equal(random_numbers(3, 4, 5), expected)
    assert mx.default_device() == mx.default_device()


@pytest.mark.quick
def test_progress_counts_every_check(monkeypatch):
    few = [Check(str(place), 1.0, lambda: [(mx.ones(1), mx.ones(1))]) for place in range(FEW)]
    monkeypatch.setattr("metal_gen.device_checks.every.every_check", lambda: iter(few))
    seen = []
    results = run_every_check(lambda result, done, total: seen.append((result.name, done, total)))
    assert seen == [(str(place), place + 1, FEW) for place in range(FEW)]
    assert all(result.passed for result in results)


def test_buffers_are_kept_for_reuse_whatever_a_model_has_set_before(monkeypatch):
    limits = []

    def note():
        limits.append(limit_buffer_cache(CACHE_BYTES))
        return [(mx.ones(1), mx.ones(1))]

    check = Check("a check", 1.0, note)
    monkeypatch.setattr("metal_gen.device_checks.every.every_check", lambda: iter([check]))
    before = limit_buffer_cache(1000)
    run_every_check()
    assert limit_buffer_cache(before) == 1000
    assert limits == [CACHE_BYTES]


def test_an_nvidia_gpu_compiles_a_kernel_for_the_prompts_of_one_packing(monkeypatch):
    """Each takes most of a minute there at first, and is already there on a Mac."""

    def long_products():
        checks = [check for check in matrix_checks() if check.name.startswith("matrix, ")]
        return sum(PROMPT_ROWS in check.pairs.args[1] for check in checks if "groups" in check.name)

    assert long_products() == len(PACKINGS)
    monkeypatch.setattr("metal_gen.device_checks.matrices.runs_on_cuda", lambda: True)
    assert long_products() == len(PACKINGS_OF_CUDA_PROMPTS) == 1


def test_every_family_is_checked():
    assert {fields["model_type"].removesuffix("_text") for fields in MODELS.values()} == {
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "qwen3_next",
        "qwen3_5",
    }
