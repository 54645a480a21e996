"""Tests LoRA adapters: logits equal those of unmerged ones, and errors name what does not fit."""

import json
import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from adapter_files import (
    RANK,
    load_adapted_and_quantized,
    peft_tensors,
    random_factors,
    write_mlx,
    write_peft,
    write_with_mlx_lm,
)
from peak_memory import begin_peak, in_use, peak_since, rounding
from published_checkpoint import awq, fp8, gptq, pack_quantized, read_safetensors, write_published
from quantized_checkpoint import quantizable_config, quantize_with_mlx_lm
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import PROMPT, tiny_config, tiny_weights, vision_language_configs, write_checkpoint

from metal_gen.batch.output.fingerprint import fingerprint
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import ARGUMENT_SOURCE, Settings
from metal_gen.errors import CheckpointError, ConfigError, MetalGenError, ModelNotFoundError
from metal_gen.generation.loading import prepare
from metal_gen.models.matrices.adapted import AdaptedMatrix
from metal_gen.models.matrices.matrix import DenseMatrix
from metal_gen.models.matrices.quantized import Packing

pytest_plugins = ("fixtures_cli",)
pytestmark = pytest.mark.metal

GOLDENS = Path(__file__).parents[1] / "data" / "adapters"
FOUR_BITS = Packing(4, 64)
V_PROJ, DOWN_PROJ = "model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj"
TINY_SHAPES = {V_PROJ: (64, 32), DOWN_PROJ: (32, 48)}


@pytest.fixture
def logits_of(make_cache):
    """Compute the prompt's logits, (L, V)."""

    def compute(folder, *adapters):
        model = Checkpoint(folder, adapters=adapters).weights.load("float32")
        return np.array(model.logits(model(mx.array([PROMPT]), make_cache(model)))[0])

    return compute


@pytest.fixture
def tiny(tmp_path):
    return write_checkpoint(tmp_path / "tiny", tiny_config("qwen3"))


@pytest.fixture
def quantized(tmp_path):
    return quantize_with_mlx_lm(tmp_path, quantizable_config("qwen3"), FOUR_BITS)


def assert_close(found, expected):
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", [path.name for path in sorted(GOLDENS.iterdir()) if path.is_dir()])
def test_logits_are_those_of_peft(name, logits_of, tmp_path):
    folder = write_checkpoint(tmp_path, tiny_config(name.partition("-")[0]))
    expected = load_file(GOLDENS / "logits.safetensors")[name]
    assert_close(logits_of(folder, str(GOLDENS / name)), expected)
    assert np.abs(logits_of(folder) - expected).max() > 0.1 * np.abs(expected).max()


MLX_LM_CASES = {
    "qwen2": (quantizable_config("qwen2"), ["self_attn.v_proj", "mlp.down_proj"]),
    "qwen3": (quantizable_config("qwen3"), None),
    "qwen3, tied": (
        quantizable_config("qwen3", tie_word_embeddings=True),
        ["model.embed_tokens", "self_attn.q_proj"],
    ),
    "qwen3, untied": (quantizable_config("qwen3"), ["lm_head", "mlp.up_proj"]),
    "qwen2_moe": (quantizable_config("qwen2_moe"), None),
    "qwen3_moe": (quantizable_config("qwen3_moe"), ["mlp.switch_mlp.up_proj", "mlp.switch_mlp.down_proj"]),
    "qwen3_next": (quantizable_config("qwen3_next"), None),
    "qwen3_5": (quantizable_config("qwen3_5"), None),
}


@pytest.mark.parametrize("is_quantized", [False, True])
@pytest.mark.parametrize("name", MLX_LM_CASES)
def test_logits_are_those_of_mlx_lm(name, is_quantized, logits_of, tmp_path):
    config, keys = MLX_LM_CASES[name]
    choose = None if is_quantized else lambda path, module: False
    base = quantize_with_mlx_lm(tmp_path, config, FOUR_BITS, choose)
    expected = write_with_mlx_lm(tmp_path / "adapter", base, keys)
    assert_close(logits_of(base, str(tmp_path / "adapter")), expected)


def with_sums(weights, *added):
    """Return the weights W + scale * B A, computed in float64."""
    for factors, scale in added:
        for name, (first, second) in factors.items():
            whole = weights[f"{name}.weight"] + scale * second.astype(np.float64) @ first
            weights[f"{name}.weight"] = whole.astype(np.float32)
    return weights


def test_adapters_add_up_each_with_its_scale(tiny, logits_of, tmp_path):
    one, other = random_factors(TINY_SHAPES, 1), random_factors({DOWN_PROJ: (32, 48)}, 2)
    adapters = [
        write_peft(tmp_path / "peft", peft_tensors(one)) + "=0.5",
        write_mlx(tmp_path / "mlx", other, 3.0) + "=-2e-1",
    ]
    config = tiny_config("qwen3")
    summed = with_sums(tiny_weights(config), (one, 0.5 * 2), (other, -0.2 * 3.0))
    expected = logits_of(write_checkpoint(tmp_path / "summed", config, summed))
    assert_close(logits_of(tiny, *adapters), expected)


def test_adapters_of_quantized_weights_add_up_beside_them(quantized, logits_of, tmp_path):
    shapes = {V_PROJ: (128, 64), DOWN_PROJ: (64, 128)}
    one, other = random_factors(shapes, 1), random_factors({V_PROJ: (128, 64)}, 2)
    adapters = [
        write_peft(tmp_path / "one", peft_tensors(one)),
        write_mlx(tmp_path / "other", other) + "=0.5",
    ]
    packed, config = mx.load(str(quantized / "model.safetensors")), quantizable_config("qwen3")
    plain = {}
    for name in tiny_weights(config):
        matrix = name.removesuffix(".weight")
        if f"{matrix}.scales" in packed:
            parts = (packed[f"{matrix}.{part}"] for part in ("weight", "scales", "biases"))
            plain[name] = np.array(mx.dequantize(*parts))
        else:
            plain[name] = np.array(packed[name])
    summed = with_sums(plain, (one, 2), (other, 0.5 * 2))
    expected = logits_of(write_checkpoint(tmp_path / "summed", config, summed))
    assert_close(logits_of(quantized, *adapters), expected)


@pytest.mark.parametrize(
    "method", [awq(32), gptq(4, 32), fp8((48, 40)), pack_quantized(4, 32, symmetric=True)]
)
def test_adapters_add_to_what_other_programs_have_quantized(method, logits_of, tmp_path):
    published, plain = write_published(tmp_path, method, "qwen3")
    weights = read_safetensors(plain)
    shapes = {name: weights[f"{name}.weight"].shape for name in (V_PROJ, DOWN_PROJ)}
    adapter = write_peft(tmp_path / "adapter", peft_tensors(random_factors(shapes)))
    expected = logits_of(plain, adapter)
    assert_close(logits_of(published, adapter), expected)
    assert np.abs(logits_of(published) - expected).max() > 0.1 * np.abs(expected).max()


def test_adapters_apply_to_the_language_part(logits_of, tmp_path):
    config = dict(vision_language_configs())["qwen3_vl-untied"]
    prefix = "model.language_model.layers.1"
    factors = random_factors({f"{prefix}.mlp.down_proj": (32, 48)})
    seen = {"base_model.model.model.visual.blocks.9.mlp.lora_A.weight": floats(RANK, 48)}
    seen["base_model.model.model.visual.blocks.9.mlp.lora_B.weight"] = floats(64, RANK)
    adapter = write_peft(tmp_path / "adapter", {**peft_tensors(factors), **seen})
    base = write_checkpoint(tmp_path / "base", config)
    summed = write_checkpoint(tmp_path / "summed", config, with_sums(tiny_weights(config), (factors, 2)))
    assert_close(logits_of(base, adapter), logits_of(summed))


def test_merged_adapters_take_no_memory_and_others_little(tiny, tmp_path):
    adapter = write_peft(tmp_path / "adapter", peft_tensors(random_factors(TINY_SHAPES)))
    model = Checkpoint(tiny, adapters=[adapter]).weights.load("float32")
    assert all(isinstance(layer.attention.qkv.weight, DenseMatrix) for layer in model.layers)
    model = load_adapted_and_quantized(tmp_path)
    qkv = model.layers[0].attention.qkv.weight
    assert isinstance(qkv, AdaptedMatrix)
    assert qkv.down.shape == (RANK, 64)
    assert isinstance(model.layers[0].attention.output.weight, type(qkv.base))


@pytest.mark.parametrize(("dtype", "is_quantized"), [("float32", True), ("bfloat16", False)])
def test_memory_equals_the_plan(dtype, is_quantized, tmp_path):
    config = quantizable_config("qwen3", vocab_size=4096)
    base = quantize_with_mlx_lm(
        tmp_path, config, FOUR_BITS, None if is_quantized else lambda path, module: False
    )
    shapes = {"model.embed_tokens": (4096, 64), V_PROJ: (128, 64), DOWN_PROJ: (64, 128)}
    adapter = write_mlx(tmp_path / "adapter", random_factors(shapes))
    weights = Checkpoint(base, adapters=[adapter]).weights
    plain = Checkpoint(base).weights.nbytes(dtype)
    of_joined = RANK * (512 + 64)  # q, k and v are 256, 128 and 128 rows of one product.
    beside = 4 * (RANK * (4096 + 64) + of_joined + RANK * (64 + 128))
    assert weights.nbytes(dtype) - plain == (beside if is_quantized else 0)
    before = begin_peak()
    model = weights.load(dtype)
    taken, more = in_use() - before, rounding(model)
    assert abs(taken - weights.nbytes(dtype) - more) < 0.05 * taken
    assert peak_since(before) < 1.05 * weights.loading_peak_bytes(dtype) + more
    assert model.config.vocab_size == 4096


def without(name):
    def change(folder):
        tensors = load_file(folder / "adapter_model.safetensors")
        del tensors[name]
        save_file(tensors, folder / "adapter_model.safetensors")

    return change


def with_tensor(name, array):
    def change(folder):
        tensors = load_file(folder / "adapter_model.safetensors")
        save_file({**tensors, name: array}, folder / "adapter_model.safetensors")

    return change


def with_fields(**fields):
    def change(folder):
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **fields}))

    return change


def as_text(text):
    return lambda folder: (folder / "adapter_config.json").write_text(text)


def as_pickle(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def as_empty(folder):
    save_file({}, folder / "adapter_model.safetensors")


def floats(*shape):
    return np.zeros(shape, np.float32)


OF_V = f"base_model.model.{V_PROJ}.lora_"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(f"{OF_V}B.weight"), f"has {OF_V}A.weight, but its lora_B is missing"),
        (without(f"{OF_V}A.weight"), f"has {OF_V}B.weight, but its lora_A is missing"),
        (
            with_tensor(f"{OF_V}A.weight", floats(RANK, 48)),
            f"A.weight in adapter_model.safetensors is 4 x 48, but {V_PROJ} at rank 4 requires 4 x 32",
        ),
        (with_tensor(f"{OF_V}B.weight", floats(32, RANK)), "is 32 x 4, but"),
        (with_tensor(f"{OF_V}B.weight", floats(64, 3)), "is 64 x 3, but"),
        (with_tensor(f"{OF_V}B.weight", np.zeros((64, RANK), np.int8)), "is stored as I8, and only"),
        (with_fields(r=8), "is 4 x 32, but"),
        (with_fields(rank_pattern={"v_proj": 2}), f"but {V_PROJ} at rank 2 requires 2 x 32"),
        (with_fields(rank_pattern={"v_proj(": 2}), "rank_pattern has 'v_proj(', and only module names"),
        (
            with_fields(alpha_pattern={".*v_proj": 2}),
            "alpha_pattern has '.*v_proj', and only module names",
        ),
        (with_fields(rank_pattern={"^(a+)+$": 2}), "rank_pattern has '^(a+)+$', and only module names"),
        (with_fields(alpha_pattern=[1]), "alpha_pattern must be an object"),
        (with_fields(r="8"), "r must be a whole number of at least 1, not '8'"),
        (
            with_tensor(f"{OF_V}B.bias", floats(64)),
            f"{OF_V}B.bias in adapter_model.safetensors has no place in the model",
        ),
        (
            with_tensor("base_model.model.lm_head.weight", floats(65, 32)),
            "lm_head.weight in adapter_model.safetensors is 65 x 32, but the model has 64 x 32",
        ),
        (with_fields(use_dora=True), "use_dora is set, which is not supported"),
        (with_fields(lora_bias=True), "lora_bias is set"),
        (with_fields(target_parameters=["experts.down_proj"]), "target_parameters is set"),
        (with_fields(init_lora_weights="pissa_niter_16"), "init_lora_weights is 'pissa_niter_16'"),
        (with_fields(peft_type="IA3"), "peft_type is 'IA3', and only LORA is supported"),
        (with_fields(peft_type=None), "neither peft_type nor fine_tune_type nor lora_parameters"),
        (with_fields(peft_type=None, fine_tune_type="dora"), "fine_tune_type is 'dora'"),
        (with_fields(peft_type=None, fine_tune_type="lora"), "adapters.safetensors is missing"),
        (as_empty, "adapter_model.safetensors has no tensors of this model"),
        (as_pickle, "adapter_model.safetensors is missing"),
        (as_text("{"), "adapter_config.json is not JSON"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "is not an adapter: it has no"),
    ],
)
def test_refusals_name_what_cannot_be_added(change, message, tiny, tmp_path):
    write_peft(tmp_path / "adapter", peft_tensors(random_factors(TINY_SHAPES)))
    change(tmp_path / "adapter")
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tiny, adapters=[str(tmp_path / "adapter")])
    assert message in str(caught.value)
    assert str(tmp_path / "adapter") in str(caught.value)


@pytest.mark.parametrize(
    ("patterns", "rank"),
    [
        ({"v_proj": 2}, 2),
        ({"proj": 2, "self_attn.v_proj": 3}, 3),
        ({"v_proj": 2, "self_attn.v_proj": 3}, 2),
        ({r"layers\.0\.self_attn\.v_proj$": 2}, 2),
        ({"^self_attn.v_proj": 2}, 4),
        ({f"^{V_PROJ}": 2}, 2),
        ({"v_proj": 2, f"^{V_PROJ}": 3}, 2),
        ({"_proj": 2, "layers.1.self_attn.v_proj": 3}, 4),
    ],
)
def test_the_first_name_that_a_module_ends_in_counts(patterns, rank, tiny, tmp_path):
    factors = random_factors({V_PROJ: (64, 32)}, rank=rank)
    adapter = write_peft(tmp_path / "adapter", peft_tensors(factors), rank_pattern=patterns)
    assert Checkpoint(tiny, adapters=[adapter]).weights.adapters[0].low_ranks[V_PROJ].rank == rank


@pytest.mark.parametrize("name", ["lora_a", ".lora_a", "", "."])
def test_a_factor_of_no_module_is_named(name, tiny, tmp_path):
    adapter = Path(write_mlx(tmp_path / "adapter", random_factors(TINY_SHAPES)))
    path = adapter / "adapters.safetensors"
    save_file({**load_file(path), name: floats(32, RANK)}, path)
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)} in adapters|has {name}, but its lora_b"):
        Checkpoint(tiny, adapters=[str(adapter)])


def test_names_without_end_cost_nothing(tiny, tmp_path):
    adapter = Path(write_peft(tmp_path / "adapter", peft_tensors(random_factors(TINY_SHAPES))))
    with_tensor(f"{'a.' * 200_000}lora_A.weight", floats(RANK, 8))(adapter)
    with_fields(rank_pattern={"v_proj": RANK})(adapter)
    with pytest.raises(CheckpointError, match="but its lora_B is missing") as caught:
        Checkpoint(tiny, adapters=[str(adapter)])
    assert len(str(caught.value)) <= 2000


def test_a_folder_name_may_look_like_a_scale(tiny, logits_of, tmp_path):
    factors = random_factors(TINY_SHAPES)
    adapter = write_peft(tmp_path / "adapter=0.5", peft_tensors(factors))
    assert np.array_equal(logits_of(tiny, adapter), logits_of(tiny, f"{adapter}=1"))
    assert (logits_of(tiny, adapter) != logits_of(tiny, f"{adapter}=0.5")).any()
    other = write_peft(tmp_path / "adapter", peft_tensors(factors))
    with pytest.raises(ConfigError, match="is ambiguous: there are folders") as caught:
        Checkpoint(tiny, adapters=[adapter])
    for hinted in (f"{adapter}=1", f"{other}=5.000000e-01"):
        assert hinted in caught.value.hint
        Checkpoint(tiny, adapters=[hinted])


def test_an_adapter_of_a_deeper_model_is_refused(tiny, tmp_path):
    factors = random_factors({"model.layers.7.self_attn.v_proj": (64, 32)})
    with pytest.raises(
        CheckpointError, match=r"lora_a in adapters.safetensors has no place: there is no matrix"
    ):
        Checkpoint(tiny, adapters=[write_mlx(tmp_path / "adapter", factors)])


def test_experts_in_another_layout_are_refused_with_what_to_do(tmp_path):
    base = write_checkpoint(tmp_path / "base", tiny_config("qwen3_moe"))
    name = "model.layers.0.mlp.switch_mlp.down_proj"
    adapter = write_mlx(tmp_path / "adapter", {name: (floats(24, 6 * RANK), floats(6 * RANK, 32))})
    with pytest.raises(CheckpointError, match="no place") as caught:
        Checkpoint(base, adapters=[adapter])
    assert "mlx_lm.fuse" in caught.value.hint


def test_experts_of_another_rank_are_not_reported_as_another_layout(tmp_path):
    base = quantize_with_mlx_lm(tmp_path, quantizable_config("qwen3_moe"), FOUR_BITS)
    name = "model.layers.0.mlp.switch_mlp.down_proj"
    adapter = write_mlx(tmp_path / "adapter", {name: (floats(64, 2), floats(2, 64))})
    with pytest.raises(CheckpointError, match="at rank 4 requires") as caught:
        Checkpoint(base, adapters=[adapter])
    assert "another model" in caught.value.hint


@pytest.mark.parametrize("shape", [(66, 32), (64, 48), (62, 32)])
@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens"])
def test_tokens_that_were_added_in_training_are_named_as_the_reason(name, shape, tiny, tmp_path):
    tensors = peft_tensors(random_factors(TINY_SHAPES)) | {f"base_model.model.{name}.weight": floats(*shape)}
    with pytest.raises(CheckpointError, match="but the model has 64 x 32") as caught:
        Checkpoint(tiny, adapters=[write_peft(tmp_path / "adapter", tensors)])
    has_more_rows = shape == (66, 32)
    assert ("tokens were added" in caught.value.hint) == has_more_rows
    assert ("another model" in caught.value.hint) != has_more_rows


def test_experts_that_are_stored_one_by_one_are_adapted_unless_they_are_quantized(logits_of, tmp_path):
    config = quantizable_config("qwen3_moe")
    factors = random_factors({f"model.layers.{index}.mlp.experts.3.down_proj": (64, 64) for index in (0, 1)})
    adapter = write_peft(tmp_path / "adapter", peft_tensors(factors))
    base = write_checkpoint(tmp_path / "base", config)
    summed = write_checkpoint(tmp_path / "summed", config, with_sums(tiny_weights(config), (factors, 2)))
    assert_close(logits_of(base, adapter), logits_of(summed))

    tensors = {name: mx.array(array) for name, array in tiny_weights(config).items()}
    for name in [name for name in tensors if ".experts." in name]:
        parts = mx.quantize(tensors.pop(name), **FOUR_BITS.keywords)
        names = (name.replace("weight", part) for part in ("weight", "scales", "biases"))
        tensors.update(zip(names, parts, strict=True))
    mx.save_safetensors(str(base / "model.safetensors"), tensors)
    (base / "config.json").write_text(json.dumps({**config, "quantization": {"bits": 4, "group_size": 64}}))
    assert np.isfinite(logits_of(base)).all()
    with pytest.raises(CheckpointError, match=r"single quantized experts: .*experts.3.down_proj"):
        Checkpoint(base, adapters=[adapter])


def test_peft_cannot_tell_apart_an_embedding_and_a_head_that_are_one(tmp_path):
    base = write_checkpoint(tmp_path / "base", tiny_config("qwen3", tie_word_embeddings=True))
    tensors = peft_tensors(random_factors({"model.embed_tokens": (64, 32)}))
    with pytest.raises(CheckpointError, match="changes an embedding or a head, but here both are one"):
        Checkpoint(base, adapters=[write_peft(tmp_path / "adapter", tensors)])


def test_whole_tensors_are_neither_scaled_nor_packed_nor_taken_twice(tiny, quantized, tmp_path):
    tensors = {"base_model.model.lm_head.weight": floats(64, 32)}
    one, other = (write_peft(tmp_path / name, tensors) for name in ("one", "other"))
    with pytest.raises(CheckpointError, match=r"cannot be scaled by 0.5: base_model.model.lm_head.weight in"):
        Checkpoint(tiny, adapters=[f"{one}=0.5"])
    with pytest.raises(CheckpointError, match=r"both replace lm_head.weight"):
        Checkpoint(tiny, adapters=[one, other])
    with pytest.raises(CheckpointError, match="cannot replace quantized numbers"):
        Checkpoint(quantized, adapters=[one])


def test_a_full_fine_tune_replaces_the_weights(tiny, logits_of, tmp_path):
    config = tiny_config("qwen3")
    others = {name: array for name, array in tiny_weights(config, seed=5).items() if "layers.1" in name}
    folder = Path(write_mlx(tmp_path / "adapter", {}, fine_tune_type="full"))
    save_file(others, folder / "adapters.safetensors")
    expected = logits_of(write_checkpoint(tmp_path / "tuned", config, {**tiny_weights(config), **others}))
    assert np.array_equal(logits_of(tiny, str(folder)), expected)


def test_adapters_are_existing_folders_given_once(tiny, tmp_path):
    adapter = write_peft(tmp_path / "a=b", peft_tensors(random_factors(TINY_SHAPES)))
    assert Checkpoint(tiny, adapters=[adapter]).weights.adapters[0].scale == 1
    assert Checkpoint(tiny, adapters=[f"{adapter}=0.25"]).weights.adapters[0].scale == 0.25
    with pytest.raises(ConfigError, match="is given 2 times"):
        Checkpoint(tiny, adapters=[adapter, f"{adapter}=0.5"])
    with pytest.raises(ModelNotFoundError, match="org/name does not exist") as caught:
        Checkpoint(tiny, adapters=["org/name=0.5"])
    assert "hf download" in caught.value.hint


def test_the_command_line_adds_adapters_and_says_so(run_here, tiny, tmp_path, monkeypatch):
    adapter = write_peft(tmp_path / "adapter", peft_tensors(random_factors(TINY_SHAPES)))
    outcome = run_here("plan", tiny, "--adapter", f"{adapter}=0.5", "--json")
    assert json.loads(outcome.stdout)["adapters"] == [{"folder": adapter, "scale": 0.5}]
    outcome = run_here("plan", tiny, "--adapter", f"{adapter}=0.5")
    assert f"{adapter}, times 0.5; matrices added to: 2" in outcome.stdout.decode().replace("\n", "")
    monkeypatch.setenv("METAL_GEN_ADAPTER", f"{adapter}=101")
    assert run_here("plan", tiny).code == 3
    monkeypatch.delenv("METAL_GEN_ADAPTER")
    assert run_here("plan", tiny, "--adapter", "./nowhere").code == 4
    (tmp_path / "adapter" / "adapter_config.json").write_text("[]")
    assert run_here("plan", tiny, "--adapter", adapter).code == 5


def test_a_batch_is_not_resumed_with_other_adapters(tiny, tmp_path):
    one, other = (
        write_peft(tmp_path / str(seed) / "same name", peft_tensors(random_factors(TINY_SHAPES, seed)))
        for seed in (1, 2)
    )
    given = [(), (one,), (f"{one}=0.5",), (other,), (one, other)]
    marks = [
        fingerprint(prepare(Settings(model=str(tiny), adapter=adapters)), None)["adapters"]
        for adapters in given
    ]
    assert marks[0] is None
    assert len(set(marks)) == len(given)


def test_a_setting_of_adapters_is_a_list_of_texts():
    check = Settings.__dataclass_fields__["adapter"].metadata["check"]
    assert check(["./a", "b=0.5"]) == check.from_texts(["./a", "b=0.5"]) == ("./a", "b=0.5")
    assert check.from_text('["./a", "b=0.5"]') == ("./a", "b=0.5")
    assert check.from_text("./a") == ("./a",)
    for wrong in (["a=nan"], ["a=1e9"], ["=0.5"], [""], [5], 5, {"a": 1}):
        with pytest.raises(ValueError, match="must be a list of adapters"):
            check(wrong)


def test_an_invalid_scale_is_not_part_of_the_folder_name(tmp_path):
    folder = write_checkpoint(tmp_path / "model", tiny_config("qwen3"))
    (tmp_path / "adapter").mkdir()
    with pytest.raises(ConfigError, match="is not a number: 'half'"):
        Checkpoint(folder, adapters=[f"{tmp_path / 'adapter'}=half"])


@pytest.mark.parametrize(("source", "code"), [("--adapter", 2), ("adapter", 2), ("job.toml", 3)])
def test_an_invalid_scale_is_a_fault_of_the_place_where_it_is_set(tiny, tmp_path, source, code):
    text = f"{write_peft(tmp_path / 'adapter', {})}=half"
    place = ARGUMENT_SOURCE if source == "adapter" else source
    with pytest.raises(MetalGenError, match=f"^{source}: .*the scale of the adapter") as caught:
        prepare(Settings(model=str(tiny)).override({"adapter": (text,)}, place))
    assert caught.value.exit_code == code


def test_an_adapter_without_permission_to_list_it_is_refused(monkeypatch, tmp_path):
    folder = write_checkpoint(tmp_path / "model", tiny_config("qwen3"))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ModelNotFoundError, match="may not be read"):
        Checkpoint(folder, adapters=[str(folder)])
