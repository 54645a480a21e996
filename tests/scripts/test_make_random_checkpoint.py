"""Tests of the script that writes random checkpoints of published shapes."""

import json
import math
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from mtp_checkpoint import mtp_weights
from tiny_checkpoint import tensor_shapes as tiny_shapes

import metal_gen
from metal_gen.bench.runners.synthetic_prompt import synthetic_prompt
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.mtp_weights import MtpWeights
from metal_gen.conversion.new_folder import NewFolder
from metal_gen.files.weight_files import WEIGHTS_INDEX, read_headers
from scripts.make_random_checkpoint import main
from scripts.random_checkpoint.numbers import RandomNumbers
from scripts.random_checkpoint.shapes import SHAPES, end_of_text, is_hybrid, published_config
from scripts.random_checkpoint.tensors import tensor_shapes
from scripts.random_checkpoint.write import write_checkpoint

# These sizes are divided, the others are as published.
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "num_experts": 8,
    "vocab_size": 400,
}
# In billions, of the language model.
PARAMETERS = {
    "qwen3-0.6b": 0.596,
    "qwen3-4b": 4.022,
    "qwen3-8b": 8.191,
    "qwen3-30b-a3b": 30.532,
    "qwen3.5-0.8b": 0.752,
    "qwen3.5-4b": 4.206,
    "qwen3.5-35b-a3b": 34.661,
}


def small_config(name, **changes):
    """Return a config with few layers and small sizes."""
    sizes = {field: size for field, size in SMALL.items() if field in SHAPES[name]}
    return published_config(name, layers=4 if is_hybrid(SHAPES[name]) else 1, **{**sizes, **changes})


def write(folder, config, *, seed=0, dtype=mx.bfloat16, numbers=RandomNumbers, **options):
    made = numbers(dtype, seed, around_zero=is_hybrid(config))
    write_checkpoint(config, NewFolder(folder), made, **options)
    return folder


def expected_shapes(config):
    """Return what the configuration implies by the tests' own list, in the published layout."""
    text = {**config.get("text_config", config), "model_type": config["model_type"]}
    shapes = tiny_shapes(text)
    if is_hybrid(config):
        shapes.update({name: array.shape for name, array in mtp_weights(text).items()})
    if config["model_type"] == "qwen3_5_moe":
        count, size, hidden = text["num_experts"], text["moe_intermediate_size"], text["hidden_size"]
        for name in [name for name in shapes if ".experts." in name]:
            prefix = name.partition(".experts.")[0]
            shapes[f"{prefix}.experts.gate_up_proj"] = (count, 2 * size, hidden)
            shapes[f"{prefix}.experts.down_proj"] = (count, hidden, size)
            del shapes[name]
    if "text_config" in config:
        nested = "model.language_model."
        return {
            nested + name.removeprefix("model.") if name.startswith("model.") else name: shape
            for name, shape in shapes.items()
        }
    return shapes


@pytest.mark.parametrize("name", SHAPES)
def test_published_sizes(name):
    shapes = tensor_shapes(published_config(name))
    count = sum(math.prod(shape) for tensor, shape in shapes.items() if not tensor.startswith("mtp."))
    assert count / 1e9 == pytest.approx(PARAMETERS[name], abs=6e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_written_loads_and_computes(name, make_cache, tmp_path):
    config = small_config(name)
    folder = write(tmp_path / "out", config)
    headers = read_headers(folder)
    assert {tensor: info.shape for tensor, info in headers.items()} == expected_shapes(config)
    assert {info.dtype for info in headers.values()} == {"BF16"}
    checkpoint = Checkpoint(folder)
    assert checkpoint.config.unknown_fields == ()
    assert checkpoint.notices == ()
    assert checkpoint.eos_ids == {397, 399}
    model = checkpoint.weights.load("float32")
    logits = np.array(model.logits(model(mx.array([[3, 17, 60, 8]]), make_cache(model))))
    assert np.isfinite(logits).all()
    assert logits.std() > 0
    assert bool(MtpWeights(checkpoint.weights)) == is_hybrid(config)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32], ids=str)
def test_numbers_are_those_of_the_seed(dtype, tmp_path):
    config = small_config("qwen3.5-0.8b")
    first, same, other = (
        mx.load(str(write(tmp_path / str(place), config, seed=seed, dtype=dtype) / "model.safetensors"))
        for place, seed in enumerate((1, 1, 2))
    )
    assert all(mx.array_equal(first[name], same[name]).item() for name in first)
    matrix = "model.language_model.layers.0.mlp.up_proj.weight"
    assert first[matrix].dtype == dtype
    assert not mx.array_equal(first[matrix], other[matrix]).item()
    assert mx.std(first[matrix].astype(mx.float32)).item() == pytest.approx(0.02, rel=0.1)
    assert mx.all(mx.isfinite(first["model.language_model.layers.0.linear_attn.A_log"])).item()
    assert mx.all(first["model.language_model.norm.weight"] == 0).item()
    assert mx.all(first["model.language_model.layers.0.linear_attn.norm.weight"] == 1).item()


def test_blocks_are_the_rows_of_a_tensor(monkeypatch):
    monkeypatch.setattr("scripts.random_checkpoint.numbers.BLOCK_SIZE", 64)
    blocks = list(RandomNumbers(mx.float32, 0, around_zero=False).blocks("a.weight", (7, 24)))
    assert [block.shape for block in blocks] == [(2, 24), (2, 24), (2, 24), (1, 24)]
    assert not mx.array_equal(blocks[0], blocks[1]).item()


def test_several_files_have_an_index(tmp_path):
    config = small_config("qwen3-0.6b")
    one, many = write(tmp_path / "one", config), write(tmp_path / "many", config, shard_bytes=100_000)
    assert not (one / WEIGHTS_INDEX).exists()
    index = json.loads((many / WEIGHTS_INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{n + 1:05d}-of-{len(files):05d}.safetensors" for n in range(len(files))]
    assert len(files) > 2
    whole = mx.load(str(one / "model.safetensors"))
    parts = {name: mx.load(str(many / file))[name] for name, file in index["weight_map"].items()}
    assert whole.keys() == parts.keys()
    assert all(mx.array_equal(whole[name], parts[name]).item() for name in whole)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in whole.values())


def test_the_tokenizer_has_every_ordinary_token(tmp_path):
    config = small_config("qwen3-0.6b", vocab_size=70_000)
    tokenizer = Checkpoint(write(tmp_path / "out", config)).tokenizer
    assert len(tokenizer.ids) == 70_000
    assert len({tokenizer.token_bytes(token) for token in range(end_of_text(config))}) == 69_997
    assert max(synthetic_prompt(tokenizer, 100)) > 60_000
    assert tokenizer.encode("ab", add_special_tokens=False) == [tokenizer.id_of("a"), tokenizer.id_of("b")]


def test_a_tokenizer_is_copied(tmp_path):
    first = write(tmp_path / "first", small_config("qwen3-0.6b"))
    (first / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    second = write(tmp_path / "second", small_config("qwen3-0.6b"), tokenizer=first)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (second / name).read_bytes() == (first / name).read_bytes()


class Interrupted(RandomNumbers):
    """Numbers that someone does not wait for."""

    def block(self, name, number, shape):
        if name == "model.norm.weight":
            raise KeyboardInterrupt
        return super().block(name, number, shape)


def test_an_interrupted_run_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", small_config("qwen3-0.6b"), numbers=Interrupted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qwen3-0.6b", "taken"], "taken is a folder that is not empty"),
        (["qwen3-0.6b", "out", "--right", "0.7", "--draft", "taken"], "taken is a folder that is not empty"),
        (
            ["qwen3-0.6b", "out", "--right", "0.7", "--draft", "out"],
            "out cannot be both the model and its draft",
        ),
        (["qwen3-0.6b", "out", "--right", "0.7"], "--right of qwen3-0.6b needs --draft"),
        (
            ["qwen3.5-4b", "out", "--right", "1", "--draft", "d"],
            "--draft needs --right and a shape without MTP",
        ),
        (["qwen3-0.6b", "out", "--draft", "d"], "--draft needs --right"),
        (["qwen3-0.6b", "out", "--layers", "29"], "qwen3-0.6b cannot have 29 layers: 1 to 28 are possible"),
        (["qwen3.5-4b", "out", "--layers", "3"], "qwen3.5-4b cannot have 3 layers: 4 to 32 are possible"),
        (["qwen3-0.6b", "out", "--tokenizer", "taken"], "taken has no tokenizer.json"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    assert main(arguments) == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr.startswith(f"make_random_checkpoint: {message}")
    assert stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file"]


@pytest.mark.parametrize(
    "name",
    [
        *("qwen3-8b", "qwen3.5-0.8b"),
        *(pytest.param(name, marks=pytest.mark.release) for name in ("qwen3-30b-a3b", "qwen3.5-35b-a3b")),
    ],
)
def test_guesses_are_right_for_the_share(name, tmp_path, monkeypatch, capsys):
    for each in {name, "qwen3-0.6b"}:
        sizes = {field: size for field, size in SMALL.items() if field in SHAPES[each]}
        few = {"hidden_size": 128, "num_hidden_layers": 1}
        if is_hybrid(SHAPES[each]):
            few.update(num_hidden_layers=4, linear_num_key_heads=2, linear_num_value_heads=4)
        monkeypatch.setitem(SHAPES, each, {**SHAPES[each], **sizes, **few})
    out, draft = tmp_path / "out", tmp_path / "draft"
    has_draft = not is_hybrid(SHAPES[name])
    assert main([name, str(out), "--right", "0.7", *(["--draft", str(draft)] if has_draft else [])]) == 0
    assert capsys.readouterr().out.count("GB of weights") == 1 + has_draft
    settings = {"speculate": "draft", "draft_model": str(draft)} if has_draft else {"speculate": "mtp"}
    model = metal_gen.load(str(out), max_seq_len=512, draft_tokens=1, **settings)
    text = metal_gen.generate(model, "a", max_tokens=250, temperature=0.0)
    assert all(after == (before + 1) % 397 for before, after in pairwise(text.token_ids))
    counts = text.statistics.speculation
    assert counts.drafted > 100
    assert counts.accepted / counts.drafted == pytest.approx(0.7, abs=0.1)
