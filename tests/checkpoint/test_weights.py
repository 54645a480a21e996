"""Tests which weight files are read, the checks before reading, and the memory of reading."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from peak_memory import begin_peak, peak_since
from safetensors.numpy import save_file
from tiny_checkpoint import tiny_config, tiny_weights, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import read_header

TOKENS = mx.array([[1, 2, 3]])
CONFIG = tiny_config("qwen3")


def write_shards(folder, count=3, index=True):
    """Split the tiny weights over numbered files."""
    weights = tiny_weights(CONFIG)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    weight_map = {}
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        part = {key: weights[key] for place, key in enumerate(weights) if place % count == number}
        save_file(part, folder / name)
        weight_map.update(dict.fromkeys(part, name))
    if index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def logits(folder, make_cache, dtype="float32"):
    model = Checkpoint(folder).weights.load(dtype)
    return np.array(model.logits(model(TOKENS, make_cache(model))).astype(mx.float32))


@pytest.fixture
def expected(tmp_path_factory, make_cache):
    return logits(write_checkpoint(tmp_path_factory.mktemp("whole"), CONFIG), make_cache)


@pytest.mark.parametrize("index", [True, False])
def test_shards_equal_one_file(tmp_path, make_cache, expected, index):
    assert np.array_equal(logits(write_shards(tmp_path, index=index), make_cache), expected)


def test_a_stale_index_beside_a_whole_file_is_ignored(tmp_path, make_cache, expected):
    write_checkpoint(tmp_path, CONFIG)
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "gone.safetensors"}})
    )
    assert np.array_equal(logits(tmp_path, make_cache), expected)


def test_stray_files_are_ignored(tmp_path, make_cache, expected):
    write_shards(tmp_path)
    save_file({"adapter": np.zeros(3, np.float32)}, tmp_path / "adapters.safetensors")
    save_file({"mtp": np.zeros(3, np.float32)}, tmp_path / "model-mtp.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02 a pickle")
    assert np.array_equal(logits(tmp_path, make_cache), expected)


@pytest.mark.parametrize("index", [True, False])
def test_a_missing_shard_is_named(tmp_path, index):
    write_shards(tmp_path, index=index)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks weight files: model-00002-of-00003\.safetensors(\n|$)"):
        Checkpoint(tmp_path)


def test_no_weights_at_all(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path)
    assert "has no weights" in caught.value.message
    assert "safetensors" in caught.value.hint


@pytest.mark.parametrize(("stored", "tolerance"), [("float16", 3e-3), ("bfloat16", 3e-2)])
def test_half_precision_weights_are_converted(tmp_path, make_cache, expected, stored, tolerance):
    write_checkpoint(tmp_path, CONFIG)
    weights = mx.load(str(tmp_path / "model.safetensors"))
    halves = {name: array.astype(getattr(mx, stored)) for name, array in weights.items()}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), halves)
    assert Checkpoint(tmp_path).weights.dtype == stored
    assert np.abs(logits(tmp_path, make_cache) - expected).max() < tolerance * np.abs(expected).max()


def broken(tmp_path, change):
    weights = tiny_weights(CONFIG)
    change(weights)
    return write_checkpoint(tmp_path, CONFIG, weights)


NORM = "model.layers.1.self_attn.q_norm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(NORM), f"{NORM} is missing"),
        (
            lambda w: w.update({NORM: np.ones(31, np.float32)}),
            f"{NORM} in model.safetensors is 31, but config.json requires 32",
        ),
        (lambda w: w.update({NORM: np.ones(32, np.int32)}), f"{NORM} in model.safetensors is stored as I32"),
        (
            lambda w: w.update({"vision.weight": np.ones(3, np.float32)}),
            "vision.weight in model.safetensors has no place",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, change, message):
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(broken(tmp_path, change))
    assert message in caught.value.message


def test_a_message_is_short_whatever_tensors_are_called(tmp_path):
    def add_names(weights):
        weights.update({letter * 20_000: np.ones((1,) * 60, np.float32) for letter in "abc"})

    with pytest.raises(CheckpointError, match=r"aaa \.\.\. aaa") as caught:
        Checkpoint(broken(tmp_path, add_names))
    assert len(caught.value.message) < 1_000


def test_all_problems_are_counted(tmp_path):
    def drop_a_layer(weights):
        for name in [name for name in weights if name.startswith("model.layers.1.")]:
            del weights[name]

    with pytest.raises(CheckpointError, match=r"^([^;]*;){2} and 9 more(\n|$)"):
        Checkpoint(broken(tmp_path, drop_a_layer))


def test_buffers_of_old_checkpoints_are_ignored(tmp_path, make_cache, expected):
    def add_buffers(weights):
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(16, np.float32)

    assert np.array_equal(logits(broken(tmp_path, add_buffers), make_cache), expected)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-10], "the file has"),
        (lambda data: data + b"0", "the file has"),
        (lambda data: data[:40], "cut short"),
        (lambda data: b"", "no safetensors header"),
        (lambda data: b"\x80\x02csomething" + data, "no safetensors header"),
        (lambda data: data[:8] + b"[" + data[9:], "not JSON"),
        (lambda data: data.replace(b'"F32"', b'"F16"', 1), "does not take"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, message):
    path = write_checkpoint(tmp_path, CONFIG) / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message


def test_the_header_says_where_each_tensor_is(tmp_path):
    path = write_checkpoint(tmp_path, CONFIG) / "model.safetensors"
    content = path.read_bytes()
    for name, info in read_header(path).items():
        stored = content[info.offset : info.offset + info.nbytes]
        assert stored == tiny_weights(CONFIG)[name].tobytes()


def test_loading_takes_the_planned_memory(tmp_path):
    big = tiny_config("qwen3", vocab_size=20000, hidden_size=256, intermediate_size=512)
    weights = Checkpoint(write_checkpoint(tmp_path, big)).weights
    before = begin_peak()
    model = weights.load("float32")
    taken = mx.get_active_memory() - before
    assert abs(taken - weights.nbytes("float32")) < 0.01 * taken
    assert peak_since(before) < 1.05 * weights.loading_peak_bytes("float32")
    assert model.layers[0].attention.qkv.weight.shape == (8 * 32, 256)


def test_a_checkpoint_without_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[]", "must hold a JSON object"), ("{}", "model_type is missing")],
)
def test_a_config_that_is_not_one(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(tmp_path)


def test_an_unsupported_model_is_named_with_what_is_supported(tmp_path):
    folder = write_checkpoint(tmp_path, CONFIG)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "llama"}))
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder)
    assert "'llama'" in caught.value.message
    assert {"qwen2", "qwen3_moe"} < set(caught.value.hint.removeprefix("supported are ").split(", "))


def test_a_linked_folder_loads(tmp_path, make_cache, expected):
    folder = write_checkpoint(tmp_path / "real", CONFIG)
    (tmp_path / "link").symlink_to(folder)
    assert np.array_equal(logits(tmp_path / "link", make_cache), expected)
    shutil.rmtree(folder)
