"""Tests mixtures of experts: every layout of weights and every way to compute them give the same sum."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from on_device import cpu_only
from peak_memory import begin_peak, peak_since
from tiny_checkpoint import EXPERTS, tiny_config, tiny_weights, write_checkpoint
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.errors import CheckpointError, ConfigError
from metal_gen.generation.loading import prepare
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.experts import groups as expert_groups
from metal_gen.models.experts.experts import Experts
from metal_gen.models.experts.linear import DenseExperts
from metal_gen.models.layers import Linear
from metal_gen.models.matrices.matrix import DenseMatrix

pytestmark = pytest.mark.metal

COUNT, PER_TOKEN, HIDDEN, SIZE = 8, 3, 512, 256
CONFIG = tiny_config("qwen3_moe", norm_topk_prob=True)
MLP = "model.layers.1.mlp"


def random(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed)) / shape[-1] ** 0.5


@pytest.fixture(scope="module")
def experts():
    return Experts(
        router=Linear(DenseMatrix(8 * random(COUNT, HIDDEN))),
        gate_up=DenseExperts(random(COUNT, 2 * SIZE, HIDDEN, seed=1)),
        down=DenseExperts(random(COUNT, HIDDEN, SIZE, seed=2)),
        per_token=PER_TOKEN,
        normalized=False,
    )


def rows_of(count):
    return random(count, HIDDEN, seed=3) * HIDDEN**0.5


def one_by_one(experts, rows):
    """Compute the sum with a loop over rows and their experts, in float64."""
    router, gate_up, down = (
        np.array(part.numbers, np.float64) for part in (experts.router.weight, experts.gate_up, experts.down)
    )
    found = []
    for row in np.array(rows, np.float64):
        scores = np.exp(router @ row)
        scores /= scores.sum()
        chosen = np.argsort(-scores)[: experts.per_token]
        total = scores[chosen].sum() if experts.normalized else 1.0
        mixed = np.zeros(HIDDEN)
        for expert in chosen:
            gate, up = np.split(gate_up[expert] @ row, 2)
            mixed += scores[expert] / total * (down[expert] @ (gate / (1 + np.exp(-gate)) * up))
        found.append(mixed)
    return np.array(found)


@pytest.mark.parametrize("sorts", [False, True], ids=["blocks", "sorted, as on a GPU"])
@pytest.mark.parametrize("count", [1, 5, 6, 70])
def test_the_sum_equals_that_of_a_loop(experts, monkeypatch, count, sorts):
    monkeypatch.setattr(expert_groups, "runs_on_cpu", lambda: not sorts)
    experts = replace(experts, normalized=count > 5)
    expected = one_by_one(experts, rows_of(count))
    assert np.abs(np.array(experts(rows_of(count))) - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("on_cpu", "on_cuda", "fewest"), [(True, False, 16), (False, True, 24), (False, False, 64)]
)
def test_rows_are_grouped_from_a_number_that_depends_on_the_device(monkeypatch, on_cpu, on_cuda, fewest):
    monkeypatch.setattr(expert_groups, "runs_on_cpu", lambda: on_cpu)
    monkeypatch.setattr(expert_groups, "runs_on_cuda", lambda: on_cuda)
    for rows, is_grouped in ((fewest - 1, False), (fewest, True)):
        chosen = mx.zeros((rows, 1), mx.uint32)
        assert (expert_groups.group_rows(chosen, COUNT) is not None) == is_grouped


@pytest.mark.parametrize("favoured", [0, COUNT - 1])
def test_all_rows_may_choose_the_same_expert(experts, favoured):
    one = replace(
        experts, per_token=1, router=Linear(DenseMatrix(mx.zeros((COUNT, HIDDEN)).at[favoured].add(0.1)))
    )
    rows = mx.abs(rows_of(37))
    assert np.allclose(np.array(one(rows)), one_by_one(one, rows), atol=1e-4)


@cpu_only  # A GPU chooses kernels by the number of rows, and nothing promises more there.
def test_separate_rows_do_not_depend_on_their_number(experts, monkeypatch):
    monkeypatch.delattr("metal_gen.models.experts.experts.group_rows")
    apart, whole = replace(experts, apart=True), rows_of(40)
    for count in (1, 2, 7, 33):
        assert mx.array_equal(apart(whole[:count]), apart(whole)[:count]).item()


# Layouts


def stacked(weights, prefix):
    """Save the weights as transformers 5 does unless asked for the published form."""
    gate_up, down = [], []
    for index in range(6):
        gate, up, out = (
            weights.pop(f"{prefix}.experts.{index}.{n}_proj.weight") for n in ("gate", "up", "down")
        )
        gate_up.append(np.concatenate([gate, up]))
        down.append(out)
    weights[f"{prefix}.experts.gate_up_proj"] = np.stack(gate_up)
    weights[f"{prefix}.experts.down_proj"] = np.stack(down)


def switched(weights, prefix):
    """Save the weights as mlx-lm does."""
    for name in ("gate", "up", "down"):
        parts = [weights.pop(f"{prefix}.experts.{index}.{name}_proj.weight") for index in range(6)]
        weights[f"{prefix}.switch_mlp.{name}_proj.weight"] = np.stack(parts)


@pytest.mark.parametrize("layout", [stacked, switched])
def test_every_layout_is_the_same_model(tmp_path, make_cache, tokens, layout):
    found = []
    for name, change in (("published", lambda weights, prefix: None), ("other", layout)):
        weights = tiny_weights(CONFIG)
        for layer in range(2):
            change(weights, f"model.layers.{layer}.mlp")
        folder = write_checkpoint(tmp_path / name, CONFIG, weights)
        model = Checkpoint(folder).weights.load("float32")
        found.append(model.logits(model(tokens, make_cache(model))))
    assert mx.array_equal(*found).item()


@pytest.mark.parametrize(
    ("layout", "dtype"), [("published", "bfloat16"), (stacked, "float32"), (switched, "bfloat16")]
)
def test_loading_takes_the_planned_memory(tmp_path, layout, dtype):
    big = tiny_config("qwen3_moe", hidden_size=256, moe_intermediate_size=512, num_hidden_layers=3)
    weights = tiny_weights(big)
    for layer in range(3 if layout != "published" else 0):
        layout(weights, f"model.layers.{layer}.mlp")
    files = Checkpoint(write_checkpoint(tmp_path, big, weights)).weights
    before = begin_peak()
    model = files.load(dtype)
    assert abs(mx.get_active_memory() - before - files.nbytes(dtype)) < 0.02 * files.nbytes(dtype)
    assert peak_since(before) < 1.02 * files.loading_peak_bytes(dtype)
    # The projections of one layer are joined at a time, never those of the whole model.
    assert files.loading_peak_bytes(dtype) < files.nbytes(dtype) * (1 + 1 / 3)
    del model


# Refusals


def drop(*names):
    return lambda weights: [weights.pop(name) for name in names]


def narrow(weights):
    stacked(weights, MLP)
    weights[f"{MLP}.experts.down_proj"] = weights[f"{MLP}.experts.down_proj"][:5]


def mixed(weights):
    whole = dict(weights)
    stacked(weights, MLP)
    weights[f"{MLP}.experts.3.up_proj.weight"] = whole[f"{MLP}.experts.3.up_proj.weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(f"{MLP}.experts.2.up_proj.weight"), f"json: {MLP}.experts.2.up_proj.weight is missing"),
        (drop(f"{MLP}.gate.weight"), f"json: {MLP}.gate.weight is missing"),
        (
            narrow,
            f"json: {MLP}.experts.down_proj in model.safetensors is 5 x 32 x 24, "
            "but config.json requires 6 x 32 x 24",
        ),
        (mixed, f"json: {MLP}.experts.3.up_proj.weight in model.safetensors has no place in the model"),
    ],
)
def test_experts_that_do_not_fit_are_named(tmp_path, change, message):
    weights = tiny_weights(CONFIG)
    change(weights)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(write_checkpoint(tmp_path, CONFIG, weights))
    assert caught.value.message.endswith(message)


def test_another_number_of_experts_than_configured(tmp_path):
    folder = write_checkpoint(tmp_path, {**CONFIG, "num_experts": 4}, tiny_weights(CONFIG))
    with pytest.raises(CheckpointError, match=r"mlp\.gate\.weight in model\.safetensors is 6 x 32, but"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": None}, "num_experts is missing"),
        ({"num_local_experts": 4}, "num_experts is 6 and num_local_experts 4"),
        ({"num_experts_per_tok": 7}, "num_experts_per_tok is 7 and there are 6 experts"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok must be a whole number of at least 1"),
        ({"moe_intermediate_size": None}, "moe_intermediate_size is missing"),
        ({"mlp_only_layers": [0, "1"]}, "mlp_only_layers must be a list of whole numbers, not [0, '1']"),
        ({"norm_topk_prob": 1}, "norm_topk_prob must be true or false"),
        ({"model_type": "qwen2_moe"}, "shared_expert_intermediate_size is missing"),
    ],
)
def test_invalid_fields_are_refused(changes, message):
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_hf({**CONFIG, **changes})
    assert message in caught.value.message


def test_both_spellings_of_the_expert_count_are_known():
    modern = {**CONFIG, "num_local_experts": 6}
    assert ModelConfig.from_hf(modern) == ModelConfig.from_hf(CONFIG)
    del modern["num_experts"]
    assert ModelConfig.from_hf(modern) == ModelConfig.from_hf(CONFIG)
    assert ModelConfig.from_hf(modern).unknown_fields == ()
    assert ModelConfig.from_hf({**CONFIG, "num_experts": 0}).experts is None


@cpu_only
def test_half_precision_on_a_cpu_is_refused_before_it_is_read(tmp_path):
    folder = str(write_checkpoint(tmp_path, CONFIG))
    with pytest.raises(ConfigError, match="on a CPU, MLX computes experts in float32 only"):
        prepare(Settings(model=folder, model_dtype="bfloat16"))
    assert prepare(Settings(model=folder)).plan.dtype == "float32"


def test_weights_may_be_read_in_another_thread(tmp_path):
    folder = write_text_checkpoint(tmp_path, model_type="qwen3_moe", **EXPERTS)
    model = metal_gen.load(str(folder), max_seq_len=64)
    result = metal_gen.generate(model, "a", max_tokens=9, ignore_eos=True, seed=1)
    assert result.statistics.completion_tokens == 9
