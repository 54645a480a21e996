"""Tests stored heads that config.json ties to the embedding: a copy is dropped, another head is used."""

import json

import mlx.core as mx
import numpy as np
import pytest
from published_checkpoint import awq, change, gptq, write_published
from quantized_checkpoint import quantizable_config, quantize_with_mlx_lm
from tiny_checkpoint import tiny_config, tiny_weights, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.conversion.convert import convert
from metal_gen.conversion.new_folder import NewFolder
from metal_gen.errors import CheckpointError
from metal_gen.generation.loading import prepare
from metal_gen.models.matrices.quantized import Packing

TOKENS = mx.array([[1, 2, 3]])
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TIED = tiny_config("qwen3", tie_word_embeddings=True)
UNTIED = tiny_config("qwen3")


@pytest.fixture
def logits_of(make_cache):
    def compute(folder):
        model = Checkpoint(folder).weights.load("float32")
        return np.array(model.logits(model(TOKENS, make_cache(model))))

    return compute


def with_head(folder, head, config=TIED):
    return write_checkpoint(folder, config, {**tiny_weights(TIED), HEAD: head})


def own_head():
    return tiny_weights(UNTIED)[HEAD]


def test_a_head_of_its_own_is_used_with_a_notice(tmp_path, logits_of):
    folder = with_head(tmp_path / "own", own_head())
    checkpoint = Checkpoint(folder)
    assert not checkpoint.config.tie_word_embeddings
    assert "the stored head is used" in checkpoint.notices[0]
    expected = logits_of(with_head(tmp_path / "untied", own_head(), UNTIED))
    assert np.array_equal(logits_of(folder), expected)


def test_a_head_that_differs_in_its_last_number_is_used(tmp_path, logits_of):
    head = tiny_weights(TIED)[EMBEDDING].copy()
    head[-1, -1] += 1
    tied = logits_of(write_checkpoint(tmp_path / "tied", TIED))
    assert (logits_of(with_head(tmp_path / "own", head)) != tied).any()


def test_a_copy_of_the_embedding_is_dropped(tmp_path, logits_of):
    copy = Checkpoint(with_head(tmp_path / "copy", tiny_weights(TIED)[EMBEDDING]))
    tied = Checkpoint(write_checkpoint(tmp_path / "tied", TIED))
    assert copy.notices == ()
    assert copy.config == tied.config
    assert copy.weights.nbytes("float32") == tied.weights.nbytes("float32")
    assert np.array_equal(logits_of(copy.folder), logits_of(tied.folder))


def test_the_plan_has_room_for_a_head_of_its_own_and_a_person_is_told(tmp_path):
    head = own_head()
    prepared = prepare(Settings(model=str(with_head(tmp_path / "own", head))))
    tied = prepare(Settings(model=str(write_checkpoint(tmp_path / "tied", TIED))))
    share = {"float32": 1, "bfloat16": 2, "float16": 2}[prepared.plan.dtype]
    assert prepared.plan.weights_bytes - tied.plan.weights_bytes == head.nbytes // share
    assert any("the stored head is used" in notice for notice in prepared.notices)


def test_a_head_that_cannot_be_one_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"lm_head.weight in model.safetensors is 64 x 31, but"):
        Checkpoint(with_head(tmp_path, np.ones((64, 31), np.float32)))


def test_a_converted_checkpoint_keeps_its_own_head(tmp_path, logits_of):
    folder = with_head(tmp_path / "own", own_head())
    convert(Checkpoint(folder), NewFolder(tmp_path / "converted"))
    assert json.loads((tmp_path / "converted" / "config.json").read_text())["tie_word_embeddings"] is False
    assert np.array_equal(logits_of(tmp_path / "converted"), logits_of(folder))


def test_a_head_quantized_by_mlx_is_compared_too(tmp_path, logits_of):
    config = quantizable_config("qwen3", tie_word_embeddings=True)
    folder = quantize_with_mlx_lm(tmp_path, config, Packing(4, 64))
    tied = logits_of(folder)
    weights = mx.load(str(folder / "model.safetensors"))
    parts = ("weight", "scales", "biases")
    copies = {f"lm_head.{part}": weights[f"model.embed_tokens.{part}"] for part in parts}

    def rewrite(head):
        mx.save_safetensors(str(folder / "model.safetensors"), {**weights, **head})
        return Checkpoint(folder)

    assert rewrite(copies).config.tie_word_embeddings
    assert np.array_equal(logits_of(folder), tied)
    assert not rewrite({**copies, "lm_head.scales": 2 * copies["lm_head.scales"]}).config.tie_word_embeddings
    assert (logits_of(folder) != tied).any()
    # mlx-lm removes the numbers of a tied head, but leaves their scales.
    del copies["lm_head.weight"]
    assert rewrite(copies).config.tie_word_embeddings
    assert np.array_equal(logits_of(folder), tied)


@pytest.mark.parametrize("method", [awq(32), gptq(4, 32)])
def test_a_head_that_others_have_quantized_is_used_if_it_is_whole(method, tmp_path, logits_of):
    folder, plain = write_published(tmp_path, method, "qwen3", tie_word_embeddings=True)
    tied = logits_of(folder)
    parts, numbers = method.pack(np.random.RandomState(3), (64, 64))
    change(folder, lambda tensors, _: tensors.update({f"lm_head.{part}": parts[part] for part in parts}))
    assert "the stored head is used" in Checkpoint(folder).notices[0]

    def untie(tensors, config):
        tensors[HEAD] = numbers.astype(np.float32)
        config["tie_word_embeddings"] = False

    change(plain, untie)
    expected = logits_of(plain)
    assert np.abs(logits_of(folder) - expected).max() < 1e-4 * np.abs(expected).max()

    change(folder, lambda tensors, _: tensors.pop("lm_head.qweight"))
    assert Checkpoint(folder).notices == ()
    assert np.array_equal(logits_of(folder), tied)
