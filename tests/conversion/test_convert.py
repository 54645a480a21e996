"""Tests converted checkpoints: mlx-lm and metal-gen compute the same; a result is whole or absent."""

import errno
import json
import platform
import re
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from gguf_file import gguf_config, write_tiny_gguf
from published_checkpoint import awq, fp8, gptq, pack_quantized, write_published
from quantized_checkpoint import (
    assert_same_matrices,
    logits_of_mlx_lm,
    quantizable_config,
    quantize_with_mlx_lm,
    store_in,
    with_stacked_experts,
)
from safetensors import safe_open
from tiny_checkpoint import PROMPT, golden_configs, tiny_weights, write_checkpoint
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.conversion import convert as conversion
from metal_gen.conversion.convert import convert
from metal_gen.conversion.mlx_lm_limits import limits_of_mlx_lm
from metal_gen.conversion.new_folder import NewFolder
from metal_gen.device.buffer_cache import clear_buffer_cache
from metal_gen.errors import CheckpointError, DoesNotFitError, MetalGenError, UsageError
from metal_gen.models.matrices.quantized import Packing

pytest_plugins = ("fixtures_cli", "fixtures_text")

FOUR_BITS = Packing(4, 64)
FAMILIES = ["qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5", "qwen3_5_moe"]
CONFIGS = dict(golden_configs())
# Published configs, those that transformers 5 writes, and those with parts that are not for text.
MLX_LM_COMPUTES = [
    *("qwen2-implied-head-dim", "qwen3-rope-parameters", "qwen3-yarn-documented", "qwen3-dynamic"),
    *("qwen3_moe-modern", "qwen3_moe-one-dense"),
    *("qwen2_vl-yarn-tied", "qwen2_5_vl-nested", "qwen3_vl-tied", "qwen3_vl_moe-untied", "qwen3_vl_moe-tied"),
    *("qwen3_next-yarn", "qwen3_5-untied", "qwen3_5_moe-tied", "qwen3_5_text-alone"),
]
LINEAR = re.compile(r"layers\.[012]\.")
UNEXPECTED, USAGE, BAD_CHECKPOINT = 1, 2, 5


def converted(folder, out, packing=None, **options):
    convert(Checkpoint(folder, packing=packing), NewFolder(out), **options)
    return out


def logits_of(folder, make_cache):
    model = Checkpoint(folder).weights.load("float32")
    return np.array(model.logits(model(mx.array([PROMPT]), make_cache(model)))[0])


def tensors_in(folder):
    """Return the tensors by name, and the metadata of their files, which must hold all weights."""
    tensors, metadata = {}, []
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(mx.load(str(path)))
        with safe_open(path, "np") as file:
            metadata.append(file.metadata())
    return tensors, metadata


@pytest.mark.parametrize("name", MLX_LM_COMPUTES)
def test_both_compute_what_they_should(name, make_cache, tmp_path):
    folder = write_checkpoint(tmp_path / "plain", CONFIGS[name])
    out = converted(folder, tmp_path / "out")
    expected = logits_of(folder, make_cache)
    assert (logits_of(out, make_cache) == expected).all()
    assert np.abs(logits_of_mlx_lm(out) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert Checkpoint(out).config.rope == Checkpoint(folder).config.rope


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen3_next"])
def test_experts_that_transformers_5_has_stacked_are_those_of_mlx_lm(family, make_cache, tmp_path):
    """mlx-lm itself does not load them."""
    config = quantizable_config(family)
    apart = write_checkpoint(tmp_path / "apart", config, tiny_weights(config))
    stacked = with_stacked_experts(tiny_weights(config))
    together = write_checkpoint(tmp_path / "together", config, stacked)
    out, expected = converted(together, tmp_path / "out"), logits_of(apart, make_cache)
    assert np.abs(logits_of_mlx_lm(out) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_quantized_tensors_are_those_of_mlx_lm(family, tmp_path):
    config = quantizable_config(family, tie_word_embeddings=family == "qwen3")
    theirs = quantize_with_mlx_lm(tmp_path, config, FOUR_BITS)
    out = converted(tmp_path / "plain", tmp_path / "out", FOUR_BITS)
    (tensors, metadata), (expected, their_metadata) = tensors_in(out), tensors_in(theirs)
    assert tensors.keys() == expected.keys()
    for name, array in tensors.items():
        assert array.dtype == expected[name].dtype, name
        assert mx.array_equal(array, expected[name]), name
    assert metadata == their_metadata == [{"format": "mlx"}]
    fields, their_fields = (json.loads((folder / "config.json").read_text()) for folder in (out, theirs))
    assert fields["quantization"] == fields["quantization_config"]
    for packing in their_fields["quantization"].values():
        if isinstance(packing, dict):
            packing.setdefault("mode", "affine")
    assert fields["quantization"] == their_fields["quantization"]
    index, their_index = (
        json.loads((folder / "model.safetensors.index.json").read_text()) for folder in (out, theirs)
    )
    assert index["weight_map"] == their_index["weight_map"]
    assert index["metadata"]["total_size"] == their_index["metadata"]["total_size"]


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe", "qwen3_5"])
def test_converting_first_is_quantizing_while_loading(family, make_cache, tmp_path):
    config = quantizable_config(family)
    folder = write_checkpoint(tmp_path / "plain", config, tiny_weights(config))
    store_in(folder, "bfloat16")
    out = converted(folder, tmp_path / "out", FOUR_BITS)
    loaded = Checkpoint(folder, packing=FOUR_BITS).weights.load("float32")
    assert_same_matrices(loaded, Checkpoint(out).weights.load("float32"))
    expected = logits_of(out, make_cache)
    assert np.abs(logits_of_mlx_lm(out) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_numbers_are_quantized_in_the_dtype_that_is_asked_for(tmp_path):
    config = quantizable_config("qwen3_5")
    folder = write_checkpoint(tmp_path / "plain", config, tiny_weights(config))
    in_half = converted(folder, tmp_path / "half", dtype="float16")
    in_steps = converted(in_half, tmp_path / "steps", FOUR_BITS)
    at_once = converted(folder, tmp_path / "once", FOUR_BITS, dtype="float16")
    tensors, expected = tensors_in(at_once)[0], tensors_in(in_steps)[0]
    assert tensors.keys() == expected.keys()
    assert {array.dtype for name, array in tensors.items() if "A_log" not in name} == {mx.float16, mx.uint32}
    assert tensors["language_model.model.layers.0.linear_attn.A_log"].dtype == mx.float32
    norms = [name for name in tensors if name.endswith("norm.weight")]
    # Tensors to which 1 is added, before or after rounding.
    assert all(mx.allclose(tensors[name], expected[name], atol=1e-3) for name in norms)
    assert all(mx.array_equal(tensors[name], expected[name]) for name in tensors if name not in norms)


@pytest.mark.quick
def test_what_is_quantized_is_copied_as_it_is(tmp_path):
    folder = quantize_with_mlx_lm(tmp_path, quantizable_config("qwen3_moe"), Packing(4, 32, "mxfp4"))
    out = converted(folder, tmp_path / "out")
    tensors, expected = tensors_in(out)[0], tensors_in(folder)[0]
    assert tensors.keys() == expected.keys()
    assert all(mx.array_equal(tensors[name], expected[name]) for name in tensors)
    assert Checkpoint(out).weights.nbytes("float32") == Checkpoint(folder).weights.nbytes("float32")


@pytest.mark.parametrize(
    "method", [awq(-1), gptq(8, 64), pack_quantized(4, 32, symmetric=False), fp8((48, 40))]
)
def test_what_others_have_quantized_becomes_what_mlx_lm_has(method, make_cache, tmp_path):
    """Rows of different widths can have different group sizes."""
    published, plain = write_published(tmp_path, method, "qwen3_moe")
    out = converted(published, tmp_path / "out", dtype="float32")
    expected = logits_of(plain, make_cache)
    for logits in (logits_of(out, make_cache), logits_of_mlx_lm(out)):
        assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.quick
def test_files_and_memory_have_a_bound(tmp_path):
    config = {**quantizable_config("qwen3", num_hidden_layers=6), "intermediate_size": 4096}
    folder = write_checkpoint(tmp_path / "plain", config, tiny_weights(config))
    matrix_bytes, shard_bytes = 4 * 64 * 4096, 400_000
    clear_buffer_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    progress = []
    out = converted(
        folder,
        tmp_path / "out",
        FOUR_BITS,
        shard_bytes=shard_bytes,
        on_progress=lambda *bytes: progress.append(bytes),
    )
    assert mx.get_peak_memory() - before < 1.1 * (shard_bytes + 1.2 * matrix_bytes)
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert files == [
        f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)
    ]
    assert len(files) > 5
    assert all((out / name).stat().st_size < shard_bytes + 10_000 for name in files)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(tensors_in(out)[0])
    assert progress[-1][0] == progress[-1][1] == index["metadata"]["total_size"]
    assert_same_matrices(
        Checkpoint(out).weights.load("float32"),
        Checkpoint(folder, packing=FOUR_BITS).weights.load("float32"),
    )


class StoppedError(BaseException):
    """Stands for Ctrl-C."""


def stop(*progress):
    raise StoppedError


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(*arguments):
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.quick
@pytest.mark.parametrize("done", [0, 1])
def test_nothing_is_left_of_what_was_stopped(done, speaker, tmp_path, monkeypatch):
    if done:
        monkeypatch.setattr(NewFolder, "publish", stop)
    (tmp_path / "out").mkdir()
    with pytest.raises(StoppedError):
        converted(Path(speaker), tmp_path / "out", on_progress=None if done else stop)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not list((tmp_path / "out").iterdir())


def test_nothing_is_left_when_the_disk_is_full(speaker, tmp_path, monkeypatch):
    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(DoesNotFitError, match="out cannot be written: No space left on device"):
        converted(Path(speaker), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_else_the_disk_says_is_not_taken_for_a_lack_of_room(speaker, tmp_path, monkeypatch):
    monkeypatch.setattr(NewFolder, "publish", broken)
    with pytest.raises(MetalGenError, match="out cannot be written: Input/output error") as caught:
        converted(Path(speaker), tmp_path / "out")
    assert (caught.value.exit_code, caught.value.hint) == (UNEXPECTED, "")
    assert not list(tmp_path.iterdir())


def test_room_is_looked_for_before_anything_is_written(speaker, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda place: usage)
    hints = []
    for system in ("Linux", "Darwin"):
        monkeypatch.setattr(platform, "system", lambda system=system: system)
        with pytest.raises(DoesNotFitError, match="no room for the converted checkpoint") as caught:
            converted(Path(speaker), tmp_path / "out")
        hints.append("purgeable" in caught.value.hint)
    assert hints == [False, True]
    assert not list(tmp_path.iterdir())


@pytest.mark.quick
def test_the_command_writes_what_generates_the_same_text(run_here, speaker, tmp_path):
    outcome = run_here("convert", speaker, "out", "--dtype", "bfloat16")
    assert outcome.code == 0
    assert outcome.stdout == b""
    assert "of weights, 16.00 bits a parameter" in outcome.stderr
    texts = [run_here("generate", "-m", model, "--prompt", "a").stdout for model in (speaker, "./out")]
    assert texts[0] == texts[1] != b""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (Path(speaker) / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.quick
def test_the_command_quantizes(run_here, tmp_path):
    folder = write_text_checkpoint(tmp_path / "model", hidden_size=64, intermediate_size=128)
    assert run_here("convert", folder, "out", "--quantize", "4g32", "-q").stderr == ""
    options = ("--prompt", "a", "--seed", "1", "-n", "5")
    whole = run_here("generate", "-m", folder, "--quantize", "4g32", *options)
    assert run_here("generate", "-m", "./out", *options).stdout == whole.stdout
    refused = run_here("convert", "./out", "again", "--quantize", "8")
    assert refused.code == 3
    assert "is already quantized, with 4 bits in groups of 32, but quantize requests" in refused.stderr


def test_a_gguf_file_is_not_converted(run_here, tmp_path):
    file, _ = write_tiny_gguf(tmp_path, gguf_config("qwen3"), lambda name: "Q8_0")
    outcome = run_here("convert", file, "out")
    assert outcome.code == BAD_CHECKPOINT
    assert "tiny.gguf cannot be converted: only folders with a config.json can" in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_norms_that_nothing_would_tell_apart_are_not_converted(tmp_path):
    config = quantizable_config("qwen3_next", num_hidden_layers=4)
    fourth = {name: array for name, array in tiny_weights(config).items() if not LINEAR.search(name)}
    weights = {name.replace("layers.3", "layers.0"): array for name, array in fourth.items()}
    config.update(num_hidden_layers=1, layer_types=["full_attention"])
    folder = write_checkpoint(tmp_path / "plain", config, weights)
    with pytest.raises(CheckpointError, match="it has no layer of linear attention, which is needed to tell"):
        converted(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("out", "--quantize", "7"), USAGE, "--quantize must be 2, 3, 4, 5, 6 or 8 bits"),
        (("out", "--group-size", "32"), USAGE, "--group-size needs --quantize"),
        (("out", "--quantize", "4", "--group-size", "48"), USAGE, "--quantize must be 2, 3, 4, 5, 6 or 8"),
        (("out", "--quantize", "4", "--mode", "nf4"), USAGE, "--mode must be affine, mxfp4"),
        (
            ("out", "--quantize", "8", "--mode", "mxfp4"),
            USAGE,
            "--quantize 8 contradicts --mode: mxfp4 has 4 bits in groups of 32",
        ),
        (("out", "--dtype", "int8"), USAGE, "--dtype must be float32, bfloat16 or float16"),
        (("full",), USAGE, "full is a folder that is not empty"),
        (("full/file",), USAGE, "full/file is a file"),
        (("nowhere/out",), USAGE, "nowhere/out cannot be created: there is no folder"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments, code, message, run_here, speaker, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    outcome = run_here("convert", speaker, *arguments)
    assert (outcome.code, outcome.stdout) == (code, b"")
    assert message in outcome.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file"]


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("qwen3_moe-yarn", "rope_type yarn"),
        ("qwen2_moe-yarn", "rope_type yarn"),
        ("qwen3-yarn-tuned", "attention_factor"),
        ("qwen2_moe-one-dense", "layers with and without experts"),
        ("qwen2_moe-tied", "tie_word_embeddings"),
        ("qwen2_moe-no-bias", "qkv_bias"),
        ("qwen3_moe-bias", "attention_bias"),
        ("qwen2-sliding", "sliding windows"),
        ("qwen2-linear", "heads that do not add up to hidden_size"),
    ],
)
def test_what_mlx_lm_does_not_compute_is_known(name, limit, make_cache, tmp_path):
    folder = write_checkpoint(tmp_path / "plain", CONFIGS[name])
    out = converted(folder, tmp_path / "out")
    assert any(limit in found for found in limits_of_mlx_lm(Checkpoint(folder).config))
    expected = logits_of(folder, make_cache)
    assert (logits_of(out, make_cache) == expected).all()


def test_what_comes_to_the_place_meanwhile_is_left_alone(speaker, tmp_path):
    def come(done, whole):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "other").touch()

    with pytest.raises(UsageError, match="cannot be moved into place"):
        converted(Path(speaker), tmp_path / "out", on_progress=come)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["other"]


def test_a_checkpoint_without_a_tokenizer_is_not_converted(run_here, tmp_path):
    write_checkpoint(tmp_path / "model", quantizable_config("qwen3"))
    outcome = run_here("convert", "model", "out")
    assert (outcome.code, outcome.stdout) == (BAD_CHECKPOINT, b"")
    assert "tokenizer.json" in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_the_remains_of_a_killed_conversion_are_deleted(tmp_path):
    dead = tmp_path / ".out.0123456789abcdef.part"
    dead.mkdir()
    (dead / "model.safetensors").touch()
    with NewFolder(tmp_path / "out") as at_work:
        assert not dead.exists()
        (at_work.part / "config.json").touch()
        assert at_work.part.stat().st_mode & 0o777 == 0o700
        with NewFolder(tmp_path / "out"):
            assert at_work.part.is_dir()
        at_work.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("mode", [0o700, 0o775])
def test_a_folder_that_was_empty_keeps_its_mode(tmp_path, mode):
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(mode)
    with NewFolder(out) as folder:
        folder.publish()
    assert out.stat().st_mode & 0o777 == mode


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UsageError, match="Too many levels of symbolic links"):
        NewFolder(tmp_path / "circle")
