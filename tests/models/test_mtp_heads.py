"""Layers for multi-token prediction: what they compute, next to NumPy, and in which forms they are read."""

import json

import mlx.core as mx
import numpy as np
import pytest
from hybrid_gguf import hybrid_config, write_hybrid
from mtp_checkpoint import mtp_weights, reference_states, write_mtp_checkpoint
from published_checkpoint import awq, change, fp8, pack_quantized, write_published
from quantized_checkpoint import with_stacked_experts
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import hybrid_configs, tiny_weights, write_checkpoint

from metal_gen.cache.config import KVCacheConfig
from metal_gen.cache.kv_cache import KVCache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.mtp_weights import MtpWeights
from metal_gen.conversion.convert import convert
from metal_gen.conversion.new_folder import NewFolder
from metal_gen.errors import CheckpointError
from metal_gen.models.matrices.quantized import Packing

pytestmark = pytest.mark.metal

CONFIGS = dict(hybrid_configs())
TEXT = [(7 * place * place + 3 * place) % 64 for place in range(40)]


def opened(folder, **options):
    """Return a model, its heads and an empty cache for them."""
    checkpoint = Checkpoint(folder, **options)
    model, heads = checkpoint.weights.load("float32"), MtpWeights(checkpoint.weights).load("float32")
    config = checkpoint.config
    sizes = {"num_kv_heads": config.num_key_value_heads, "head_dim": config.head_dim}
    return model, heads, KVCache(KVCacheConfig(num_layers=1, max_seq_len=64, dtype="float32", **sizes))


def states(model, heads, cache, lengths=(39,)):
    """Return the states of the heads over TEXT, from passes of these lengths, and what they came from."""
    hidden = mx.random.normal((39, model.config.hidden_size), key=mx.random.key(1))
    rows, begin = [], 0
    for length in lengths:
        tokens = mx.array(TEXT[begin + 1 : begin + 1 + length])
        rows.append(heads(model, tokens, hidden[begin : begin + length], cache))
        begin += length
    return (
        np.array(mx.concatenate(rows)),
        np.array(model.embedding.take(mx.array(TEXT[1:]))),
        np.array(hidden),
    )


def close(found, expected):
    return np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", [name for name in CONFIGS if "yarn" not in name])
def test_they_compute_what_numpy_computes(name, tmp_path):
    weights = write_mtp_checkpoint(tmp_path, CONFIGS[name])
    found, embedded, hidden = states(*opened(tmp_path))
    assert close(found, reference_states(CONFIGS[name], weights, embedded, hidden))


def test_passes_of_any_length_give_the_same(tmp_path):
    write_mtp_checkpoint(tmp_path, CONFIGS["qwen3_5-untied"])
    whole, _, _ = states(*opened(tmp_path))
    assert close(states(*opened(tmp_path), lengths=(1, 7, 1, 30))[0], whole)


@pytest.mark.parametrize("prefix", ["model.mtp.", "language_model.mtp.", "model.language_model.mtp."])
def test_they_are_read_under_every_prefix(prefix, tmp_path):
    write_mtp_checkpoint(tmp_path / "a", CONFIGS["qwen3_5-untied"])
    write_mtp_checkpoint(tmp_path / "b", CONFIGS["qwen3_5-untied"], prefix)
    assert (states(*opened(tmp_path / "a"))[0] == states(*opened(tmp_path / "b"))[0]).all()


@pytest.mark.parametrize("name", ["qwen3_next-untied", "qwen3_5_moe-tied"])
def test_a_converted_checkpoint_has_the_same(name, tmp_path):
    write_mtp_checkpoint(tmp_path / "plain", CONFIGS[name])
    convert(Checkpoint(tmp_path / "plain"), NewFolder(tmp_path / "out"))
    assert close(states(*opened(tmp_path / "out"))[0], states(*opened(tmp_path / "plain"))[0])


def test_experts_may_be_stored_together(tmp_path):
    """Qwen3.5's are one by one, and Qwen3.6's are two tensors."""
    config = CONFIGS["qwen3_5_moe-untied"]
    single = write_mtp_checkpoint(tmp_path / "a", config)
    stacked = with_stacked_experts(single)
    assert len(stacked) < len(single)
    write_checkpoint(tmp_path / "b", config, {**tiny_weights(config), **stacked})
    assert close(states(*opened(tmp_path / "b"))[0], states(*opened(tmp_path / "a"))[0])


@pytest.mark.parametrize("arch", ["qwen3_next", "qwen3_5_text"])
def test_those_of_a_gguf_file_are_the_same(arch, tmp_path):
    file, checkpoint = write_hybrid(tmp_path, hybrid_config(arch))
    assert close(states(*opened(file))[0], states(*opened(checkpoint))[0])


def test_norms_among_weights_that_mlx_lm_has_converted_are_stored_whole(tmp_path):
    write_mtp_checkpoint(tmp_path / "plain", CONFIGS["qwen3_5-untied"])
    convert(Checkpoint(tmp_path / "plain"), NewFolder(tmp_path / "out"))
    weights = load_file(tmp_path / "out" / "model.safetensors")
    added = {
        name: array + 1 if array.ndim == 1 else array
        for name, array in mtp_weights(CONFIGS["qwen3_5-untied"]).items()
    }
    for file in ("mtp.safetensors", "model.safetensors.index.json"):
        (tmp_path / "out" / file).unlink()
    save_file({**weights, **added}, tmp_path / "out" / "model.safetensors")
    assert close(states(*opened(tmp_path / "out"))[0], states(*opened(tmp_path / "plain"))[0])


@pytest.mark.parametrize(
    "published", [fp8((128, 128)), awq(32), pack_quantized(4, 32, symmetric=True)], ids=["fp8", "awq", "ct"]
)
def test_they_are_read_in_the_formats_of_other_programs(published, tmp_path):
    stored, plain = write_published(tmp_path, published, "qwen3_5")
    config = json.loads((plain / "config.json").read_text())
    heads, packed, random = {}, {}, np.random.RandomState(2)
    for name, array in mtp_weights(config).items():
        heads[name] = packed[name] = array
        if name.endswith("_proj.weight"):
            del packed[name]
            parts, heads[name] = published.pack(random, array.shape)
            packed |= {f"{name.removesuffix('.weight')}.{part}": value for part, value in parts.items()}
    change(stored, lambda tensors, config: tensors.update(packed))
    plain_weights = load_file(plain / "model.safetensors")
    save_file(
        {name: array.astype(np.float32) for name, array in (plain_weights | heads).items()},
        plain / "model.safetensors",
    )
    expected, _, _ = states(*opened(plain))
    assert close(states(*opened(stored))[0], expected)
    if published.config["quant_method"] == "fp8":
        # The converted model is no longer in FP8, and its heads are.
        convert(Checkpoint(stored), NewFolder(tmp_path / "out"))
        assert close(states(*opened(tmp_path / "out"))[0], expected)


def test_they_are_quantized_like_the_rest_but_for_the_joining_matrix(tmp_path):
    config = {**CONFIGS["qwen3_5_text-alone"], "hidden_size": 64, "intermediate_size": 64}
    write_mtp_checkpoint(tmp_path, config)
    whole, _, _ = states(*opened(tmp_path))
    packed = Checkpoint(tmp_path, packing=Packing(8, 64))
    weights = MtpWeights(packed.weights)
    assert weights.nbytes("float32") < 0.6 * MtpWeights(Checkpoint(tmp_path).weights).nbytes("float32")
    found, _, _ = states(*opened(tmp_path, packing=Packing(8, 64)))
    assert np.abs(found - whole).max() < 0.1 * np.abs(whole).max()
    joining = weights.load("float32").joining.weight
    assert (np.array(joining.numbers) == mtp_weights(config)["mtp.fc.weight"]).all()


def test_their_size_in_memory_is_known(tmp_path):
    write_mtp_checkpoint(tmp_path, CONFIGS["qwen3_5_moe-untied"])
    checkpoint = Checkpoint(tmp_path)
    numbers = sum(array.size for array in mtp_weights(CONFIGS["qwen3_5_moe-untied"]).values())
    assert MtpWeights(checkpoint.weights).nbytes("bfloat16") == 2 * numbers
    assert checkpoint.weights.mtp.keys() == mtp_weights(CONFIGS["qwen3_5_moe-untied"]).keys()


def test_a_checkpoint_may_have_none(tmp_path):
    assert not MtpWeights(Checkpoint(write_checkpoint(tmp_path, CONFIGS["qwen3_5-untied"])).weights)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda heads: heads.pop("mtp.fc.weight"), r"mtp\.fc\.weight is missing"),
        (lambda heads: heads.update({"mtp.norm.weight": heads["mtp.norm.weight"][:3]}), r"is 3, but"),
        (
            lambda heads: heads.update({"mtp.embed_tokens.weight": np.ones((64, 32), np.float32)}),
            "has no place",
        ),
    ],
    ids=["missing", "shape", "unknown"],
)
def test_heads_that_do_not_fit_are_refused_and_the_model_is_not(change, problem, tmp_path):
    heads = write_mtp_checkpoint(tmp_path, CONFIGS["qwen3_5-untied"])
    model = {
        name: array for name, array in load_file(tmp_path / "model.safetensors").items() if name not in heads
    }
    change(heads)
    write_checkpoint(tmp_path, json.loads(json.dumps(CONFIGS["qwen3_5-untied"])), {**model, **heads})
    checkpoint = Checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=problem):
        MtpWeights(checkpoint.weights)
