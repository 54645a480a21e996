"""The kernel for all between the projections of linear attention: its numbers, and when it is not used."""

import mlx.core as mx
import pytest
from cpp_kernel import kernels_as_on_a_gpu, needs_compiler
from failing_kernels import FAILING_KERNELS
from on_device import cpu_only

from metal_gen.device_checks import models as whole_models
from metal_gen.device_checks.random_weights import RandomWeights
from metal_gen.models.attention import Part, Step
from metal_gen.models.config.linear_attention import LinearAttentionConfig
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels.choice import PLAIN
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.linear_attention import mix as whole_or_part
from metal_gen.models.linear_attention import mixing
from metal_gen.models.linear_attention.mix import PART_OF_HEAD, is_supported, whole_head
from metal_gen.models.linear_attention.weights import read_delta_net

pytestmark = pytest.mark.metal

SMALL = {
    **whole_models.LINEAR,
    **{"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "full_attention_interval": 2},
    **{"linear_num_value_heads": 2, "linear_num_key_heads": 1},
    **{"linear_key_head_dim": 32, "linear_value_head_dim": 64},
}


def sizes(key=64, value=64, key_heads=2, value_heads=4, taps=4):
    return LinearAttentionConfig(
        linear_num_key_heads=key_heads,
        linear_num_value_heads=value_heads,
        linear_key_head_dim=key,
        linear_value_head_dim=value,
        linear_conv_kernel_dim=taps,
    )


HEADS = sizes(value_heads=2, key_heads=1)


@pytest.fixture
def as_on_a_gpu(monkeypatch, tmp_path, programs):
    """Kernels are tried as on a GPU, and run as C++."""
    with kernels_as_on_a_gpu(mixing, monkeypatch, tmp_path, programs) as kernels:
        yield kernels


def shares_of_largest(found, expected):
    return [
        (mx.abs(a.astype(mx.float32) - b.astype(mx.float32)).max() / mx.abs(b).max()).item()
        for a, b in zip(found, expected, strict=True)
    ]


@needs_compiler
@pytest.mark.parametrize("in_parts", [False, True], ids=["whole heads", "parts of heads"])
@pytest.mark.parametrize(
    ("heads", "length", "by_key_head"),
    [
        (HEADS, 1, False),
        (HEADS, 2, True),
        (HEADS, 3, False),
        (HEADS, 16, True),
        (HEADS, 17, False),
        (HEADS, 65, True),
        (sizes(128, 128, 1, 2), 2, False),
        (sizes(128, 128, 1, 2), 17, True),
        (sizes(32, 32, 2, 2, taps=2), 18, False),
    ],
    ids=lambda value: value if isinstance(value, int) else f"heads of {value.linear_key_head_dim}",
)
def test_the_kernel_computes_what_plain_operations_do(as_on_a_gpu, heads, length, in_parts, by_key_head):
    assert is_supported(heads)
    group = PART_OF_HEAD if in_parts else whole_head(heads.linear_value_head_dim)
    trial = mixing.MixTrial(heads, mx.float32, mx.float32, length, group, by_key_head=by_key_head)
    outputs, conv, memory = shares_of_largest(trial.by_kernel(), trial.on_cpu())
    assert conv == 0
    assert max(outputs, memory) < 1e-5
    # Parts take tokens that are prepared before, and the norm comes after them.
    assert as_on_a_gpu.names == ["mix"] * (3 if in_parts else 1)


@needs_compiler
@pytest.mark.parametrize(
    ("dtype", "conv_dtype", "rounding"),
    [(mx.bfloat16, mx.bfloat16, 2**-8), (mx.float16, mx.float32, 2**-11)],
    ids=["bfloat16", "float16 rows, float32 state"],
)
def test_results_have_the_dtypes_of_rows_and_state(as_on_a_gpu, dtype, conv_dtype, rounding):
    trial = mixing.MixTrial(sizes(32, 64, 1, 2), dtype, conv_dtype, 18, PART_OF_HEAD, by_key_head=False)
    found = trial.by_kernel()
    outputs, conv, memory = shares_of_largest(found, trial.on_cpu())
    assert [each.dtype for each in found] == [dtype, conv_dtype, mx.float32]
    assert outputs <= rounding
    assert conv <= rounding
    assert memory < 1e-5


@needs_compiler
@pytest.mark.parametrize("decay", [-30.0, -9.0, -2.6, 0.0, 4.0, 60.0])
def test_a_head_fades_as_exactly_as_its_decay_is_given(as_on_a_gpu, decay):
    """Softplus of numbers far below zero is small, not zero."""
    trial = mixing.MixTrial(sizes(32, 32, 1, 2), mx.float32, mx.float32, 3, whole_head(32), by_key_head=False)
    trial.bias = mx.full((2,), decay)
    outputs, _, memory = shares_of_largest(trial.by_kernel(), trial.on_cpu())
    assert max(outputs, memory) < 1e-5


@needs_compiler
@pytest.mark.parametrize(
    ("model_type", "run", "compiles"),
    [
        ("qwen3_5_text", whole_models._decoded, False),
        ("qwen3_5_text", whole_models._slots, True),
        ("qwen3_next", whole_models._decoded, True),
        ("qwen3_next", whole_models._slots, False),
    ],
    ids=["a text", "compiled slots", "a compiled step", "slots"],
)
def test_texts_by_the_kernel_are_those_of_plain_operations(
    as_on_a_gpu, monkeypatch, model_type, run, compiles
):
    fields = {**whole_models.BASE, **SMALL, "model_type": model_type}
    if model_type == "qwen3_next":
        fields |= {**whole_models.EXPERTS, "shared_expert_intermediate_size": 64}
    for name, value in {
        **{"PROMPT_TOKENS": 22, "CHUNK": 18, "NEW_TOKENS": 3},
        "SLOT_PROMPT_TOKENS": (22, 5, 20),
    }.items():
        monkeypatch.setattr(whole_models, name, value)
    monkeypatch.setattr(whole_or_part, "MOST_WHOLE", 16)
    mx.disable_compile()  # What MLX would compile runs as it is.
    try:
        for found, expected in run(whole_models._Family(ModelConfig.from_hf(fields)), compiles=compiles):
            assert mx.abs(found - expected).max().item() < 1e-4
    finally:
        mx.enable_compile()
    assert as_on_a_gpu.names == ["mix"] * len(as_on_a_gpu.names)
    assert len(as_on_a_gpu.names) > 4


class States:
    """The states of a layer, and how to compute them again."""

    def __init__(self, *states):
        self.now = states

    def states(self, layer, sequences):
        return self.now

    def keep(self, layer, sequences, conv, memory, replay):
        self.now, self.replay = (conv, memory), replay


@needs_compiler
@pytest.mark.parametrize("length", [4, 20])
def test_states_after_fewer_tokens_can_be_computed_again(as_on_a_gpu, monkeypatch, length):
    monkeypatch.setattr(whole_or_part, "MOST_WHOLE", 16)
    config = ModelConfig.from_hf({**whole_models.BASE, **SMALL, "model_type": "qwen3_5_text"})
    layer = read_delta_net(RandomWeights(mx.float32), "linear", config.linear, config)
    rows = mx.random.normal((length, config.hidden_size), key=mx.random.key(0))

    def after(count):
        states = States(mx.ones((1, 3, config.linear.conv_size)), mx.ones((1, 2, 64, 32)))
        layer(rows[:count], 0, Step(None, 1, count, 0, None, [Part(None)], states))
        return states

    states = after(length)
    for count in (1, 3, length - 1):
        expected = after(count).now
        assert max(shares_of_largest(states.replay(count), expected)) < 1e-6
        again = states.replay.of_arrays(states.replay.inputs, states.replay.memory)
        assert max(shares_of_largest(again.masked(mx.array([count])), expected)) < 1e-6
    assert as_on_a_gpu.names


@cpu_only
@pytest.mark.parametrize(("run", "reason"), FAILING_KERNELS)
def test_a_kernel_that_fails_its_trial_is_left_alone(as_on_a_gpu, monkeypatch, tmp_path, run, reason):
    monkeypatch.setattr(Code, "__call__", run)
    arguments = sizes(), mx.float32, mx.float32
    assert not mixing.mixing_for(*arguments).by_kernel
    shown = mixing.described(*arguments, by_kernel=True)
    assert shown.startswith(f"plain operations; not one kernel for all: {reason}")
    assert "much more" not in shown
    assert not (tmp_path / "metal-gen").exists()


@needs_compiler
def test_a_passed_trial_is_kept(as_on_a_gpu):
    arguments = sizes(32, 32, 1, 2), mx.float32, mx.float32
    for _ in range(2):
        assert mixing.mixing_for(*arguments).by_kernel
        assert mixing.described(*arguments, by_kernel=True) == "a kernel of its own"
        tried = len(as_on_a_gpu.names)
        mixing._chosen.cache_clear()
    mixing.mixing_for(*arguments)
    assert len(as_on_a_gpu.names) == tried > 0


@cpu_only
def test_a_cpu_and_a_setting_take_plain_operations(as_on_a_gpu, monkeypatch):
    arguments = sizes(), mx.float32, mx.float32
    assert not mixing.mixing_for(*arguments, by_kernel=False).by_kernel
    monkeypatch.undo()
    assert mixing.mixing_for(*arguments) == PLAIN
    assert mixing.described(*arguments, by_kernel=True) == "plain operations"


def test_heads_that_the_kernel_is_not_made_for_are_known():
    assert is_supported(sizes(32, 128))
    for heads in (sizes(key=48), sizes(key=256), sizes(value=96), sizes(value=16), sizes(128, 128, 3, 3)):
        assert not is_supported(heads), heads
