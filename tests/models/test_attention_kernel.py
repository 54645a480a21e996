"""The kernel for attention of new tokens: its numbers, what it writes, and when it is not used."""

import json
import os

import mlx.core as mx
import pytest
from cpp_kernel import kernels_as_on_a_gpu, needs_compiler
from doubtful_sampler import doubtful_sampler
from failing_kernels import FAILING_KERNELS
from on_device import cpu_only

from metal_gen.config.settings import Settings
from metal_gen.device_checks import models as whole_models
from metal_gen.engine import generator
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import read_draw
from metal_gen.generation.loading import prepare
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels import attention_trial, passed
from metal_gen.models.kernels.attention_trial import choose_attention
from metal_gen.models.kernels.choice import BY_KERNEL, PLAIN
from metal_gen.models.kernels.chosen import NO_KERNELS, ModelKernels
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.kernels.fitted import fitted
from metal_gen.models.kernels.heads import Heads
from metal_gen.models.linear_attention.gated_delta_net import GatedDeltaNet
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy

HEADS = Heads(4, 2, 64, 64, gated=False, normed=True, window=None)
KINDS = {
    "heads of 64": (HEADS, "float32", "float32"),
    "heads of 128 in a window, without norm": (
        Heads(4, 1, 128, 128, gated=False, normed=False, window=50),
        "bfloat16",
        "bfloat16",
    ),
    "heads of 256, rotated in part, with gates": (
        Heads(4, 1, 256, 64, gated=True, normed=True, window=None),
        "float16",
        "float32",
    ),
}
CONFIG = ModelConfig.from_hf({**whole_models.BASE, **whole_models.MODELS["qwen3"]})


@pytest.fixture
def as_on_a_gpu(monkeypatch, tmp_path, programs):
    """Kernels are tried as on a GPU, and run as C++."""
    with kernels_as_on_a_gpu(attention_trial, monkeypatch, tmp_path, programs) as kernels:
        yield kernels


@needs_compiler
@pytest.mark.parametrize("is_one_text", [False, True], ids=["texts", "one text"])
@pytest.mark.parametrize("stretches", [1, 4, 40])
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_computes_and_writes_what_plain_operations_do(as_on_a_gpu, kind, stretches, is_one_text):
    heads, dtype, cache_dtype = KINDS[kind]
    assert heads.are_supported
    trial = attention_trial.AttentionTrial(
        heads,
        attention_trial.dtype_named(dtype),
        attention_trial.dtype_named(cache_dtype),
        stretches,
        is_one_text=is_one_text,
    )
    untouched = [mx.array(buffer) for buffer in trial.buffers]
    for computed, right in zip(trial.by_kernel(), trial.on_cpu(), strict=True):
        share = mx.abs(computed.astype(mx.float32) - right).max() / mx.abs(right).max()
        # A few roundings of the largest number.
        assert share.item() < {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}[dtype]
    assert all(mx.array_equal(*pair) for pair in zip(trial.buffers, untouched, strict=True))


@needs_compiler
@pytest.mark.parametrize("window", [None, 1, 50])
@pytest.mark.parametrize("stretches", [1, 128])
def test_nothing_is_read_that_no_token_has_written(as_on_a_gpu, monkeypatch, stretches, window):
    """At both ends of the cache, with more stretches than positions; but for the first, which is there."""
    positions = (0, 41, attention_trial.TRIED_CAPACITY - 1)
    monkeypatch.setattr(attention_trial, "TRIED_POSITIONS", positions)
    heads = Heads(2, 1, 32, 32, gated=False, normed=True, window=window)
    trial = attention_trial.AttentionTrial(heads, mx.float32, mx.float32, stretches)
    right = trial.on_cpu()[0]
    for buffer in trial.buffers:
        for text, position in enumerate(positions):
            buffer[text, :, position:] = mx.nan
            buffer[text, :, 1 : max(1, position + 1 - (window or position))] = mx.nan
    mx.eval(trial.buffers)
    assert (mx.abs(trial.by_kernel()[0] - right).max() / mx.abs(right).max()).item() < 2e-6


@needs_compiler
@pytest.mark.parametrize("name", ["qwen2, sliding window", "qwen3_5"])
def test_texts_by_the_kernel_are_those_of_plain_operations(as_on_a_gpu, name):
    family = whole_models._Family(ModelConfig.from_hf({**whole_models.BASE, **whole_models.MODELS[name]}))
    for found, expected in whole_models._decoded(family, family.model_by_kernel):
        assert mx.abs(found - expected).max().item() < 1e-4
    assert as_on_a_gpu.names == ["attend"] * len(as_on_a_gpu.names)
    assert as_on_a_gpu.names


@needs_compiler
@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("qwen3", whole_models._slots),
        ("qwen3_5", whole_models._decoded),
        *((name, whole_models._rows) for name in ("qwen2, sliding window", "qwen3_5")),
    ],
    ids=["slots", "step", "rows in a window", "rows"],
)
def test_functions_of_a_whole_step_need_neither_a_mask_nor_the_buffers_back(as_on_a_gpu, name, run):
    family = whole_models._Family(ModelConfig.from_hf({**whole_models.BASE, **whole_models.MODELS[name]}))
    mx.disable_compile()  # What MLX would compile runs as it is.
    try:
        options = {} if run is whole_models._rows else {"compiles": True}
        for found, expected in run(family, family.model_by_kernel, **options):
            assert mx.abs(found - expected).max().item() < 1e-4
    finally:
        mx.enable_compile()
    assert as_on_a_gpu.names


@needs_compiler
@pytest.mark.parametrize("kind", [Sampler, doubtful_sampler([])], ids=["certain", "doubtful"])
def test_handing_over_early_changes_no_text(as_on_a_gpu, monkeypatch, kind):
    family = whole_models._Family(CONFIG)
    events = []
    monkeypatch.setattr(generator, "read_draw", lambda draw: (events.append("read"), read_draw(draw))[1])
    hand_over = mx.async_eval
    monkeypatch.setattr(mx, "async_eval", lambda *arrays: (events.append("hand over"), hand_over(*arrays))[1])

    def text(model):
        decoder = Decoder(model, whole_models._cache(CONFIG))
        logits = decoder.prefill([3, 5])
        sampler = kind(Greedy(), RandomKeys(0), prompt=[3, 5], capacity=64)
        events.clear()
        tokens = generator.generate_tokens(decoder, logits, sampler, endings={}, max_tokens=7)
        return [token.id for token in tokens], events[:3]

    ids, early = text(family.model_by_kernel)
    expected, late = text(family.model)
    assert ids == expected
    assert early == ["hand over", "hand over", "read"]
    assert late[:2] == ["hand over", "read"]


@pytest.mark.quick
@needs_compiler
def test_whoever_writes_after_a_step_waits_for_it(as_on_a_gpu):
    """A step that nobody reads still writes, before a prompt or known tokens follow."""
    family = whole_models._Family(CONFIG)
    whole = family.model(mx.array([[3, 5, 8, 2]]), whole_models._cache(CONFIG))
    for goes_on in (Decoder.extend, Decoder.prefill):
        decoder = Decoder(family.model_by_kernel, whole_models._cache(CONFIG))
        decoder.prefill([3])
        decoder.step(mx.array([5]))
        found = goes_on(decoder, [8, 2])
        assert mx.abs(found - family.model.logits(whole[:, -1])).max().item() < 1e-4


@pytest.mark.quick
@needs_compiler
def test_a_step_that_was_taken_back_writes_nothing_later(as_on_a_gpu):
    family = whole_models._Family(CONFIG)
    whole = family.model(mx.array([[3, 8]]), whole_models._cache(CONFIG))
    decoder = Decoder(family.model_by_kernel, whole_models._cache(CONFIG))
    decoder.prefill([3])
    decoder.step(mx.array([5]))
    decoder.cache.take_back(1)
    found = decoder.step(mx.array([8]))
    assert mx.abs(found - family.model.logits(whole[:, -1])).max().item() < 1e-4


@pytest.mark.quick
@cpu_only
@pytest.mark.parametrize(("run", "reason"), FAILING_KERNELS)
def test_a_kernel_that_fails_its_trial_is_left_alone(as_on_a_gpu, monkeypatch, tmp_path, run, reason):
    monkeypatch.setattr(Code, "__call__", run)
    choice = choose_attention(CONFIG, "float32", "float32", has_head_norms=True)
    assert not choice.by_kernel
    assert str(choice).startswith(f"plain operations; not a kernel of its own: {reason}")
    assert "much more" not in str(choice)
    assert not (tmp_path / "metal-gen").exists()


@pytest.mark.quick
@cpu_only
def test_a_cpu_and_a_packed_cache_take_plain_operations(as_on_a_gpu, monkeypatch):
    assert choose_attention(CONFIG, "float32", "q8", has_head_norms=True) == PLAIN
    monkeypatch.undo()
    assert choose_attention(CONFIG, "float32", "float32", has_head_norms=True) == PLAIN


@pytest.mark.quick
@cpu_only
def test_a_setting_turns_all_kernels_off(as_on_a_gpu, monkeypatch):
    monkeypatch.setattr(passed, "reason_against", lambda *_: None)
    chosen = [prepare(Settings(kernels=kernels)).kernels.attention.by_kernel for kernels in ("auto", "off")]
    assert chosen == [True, False]
    family = whole_models._Family(
        ModelConfig.from_hf({**whole_models.BASE, **whole_models.MODELS["qwen3_5"]})
    )
    used = fitted(family.model, ModelKernels(BY_KERNEL, in_linear_attention=True))
    unused = fitted(used, NO_KERNELS)
    assert (used.has_kernel, unused.has_kernel) == (True, False)
    linear = [layer.attention for layer in unused.layers if isinstance(layer.attention, GatedDeltaNet)]
    assert linear
    assert not any(mixer.by_kernel for mixer in linear)


@pytest.fixture
def trials(as_on_a_gpu, monkeypatch):
    """Count trials of a kernel that passes."""
    count = []
    monkeypatch.setattr(passed, "reason_against", lambda *_: count.append(1))

    def choose_anew():
        attention_trial._chosen.cache_clear()
        assert choose_attention(CONFIG, "float32", "float32", has_head_norms=True).by_kernel
        found = len(count)
        count.clear()
        return found

    return choose_anew


@pytest.mark.quick
def test_a_passed_trial_is_kept_for_this_device_and_these_versions(trials, tmp_path, monkeypatch):
    assert trials() > 0
    file = tmp_path / "metal-gen" / passed.NAME
    assert file.stat().st_mode & 0o777 == 0o600
    assert trials() == 0
    monkeypatch.setattr(passed, "device_name", lambda: "another one")
    assert trials() > 0
    assert len(json.loads(file.read_text())) == 2
    monkeypatch.setitem(vars(mx), "__version__", "0.99")
    assert trials() > 0


@pytest.mark.quick
@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b"\xff{["),
        lambda file: file.write_text('{"a": 1}'),
        lambda file: file.write_text("[1]"),
        lambda file: file.write_bytes(b" " * (1 << 17)),
        lambda file: file.chmod(0o666),
        lambda file: (file.unlink(), file.mkdir()),
        lambda file: (file.rename(file.with_name("other")), file.symlink_to("other")),
        lambda file: (file.unlink(), os.mkfifo(file)),
    ],
    ids=["no JSON", "an object", "numbers", "too large", "open to others", "a folder", "a link", "a pipe"],
)
def test_a_file_with_anything_wrong_is_ignored(trials, tmp_path, spoil):
    trials()
    spoil(tmp_path / "metal-gen" / passed.NAME)
    assert trials() > 0


@pytest.mark.quick
def test_without_a_place_for_the_file_trials_are_repeated(trials, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert trials() == trials() > 0
