"""Tests that converted checkpoints keep their layers for multi-token prediction, beside what mlx-lm loads."""

import json

import numpy as np
import pytest
from quantized_checkpoint import logits_of_mlx_lm
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import golden_configs, tiny_weights, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.conversion.convert import convert
from metal_gen.conversion.new_folder import NewFolder
from metal_gen.errors import CheckpointError, ExitCode
from metal_gen.files.safetensors_header import read_header
from metal_gen.files.weight_files import MTP_FILE
from metal_gen.models.matrices.quantized import Packing

CONFIGS = dict(golden_configs())
NAMES = ["qwen3_next-untied", "qwen3_5-untied", "qwen3_5_moe-untied", "qwen3_5_text-alone"]
HIDDEN = 32


def mtp_weights(prefix="mtp."):
    random = np.random.RandomState(3)
    shapes = {"fc.weight": (HIDDEN, 2 * HIDDEN), "norm.weight": (HIDDEN,), "layers.0.odd": (3, 5)}
    return {prefix + name: random.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}


def with_mtp(folder, name, mtp):
    config = json.loads(json.dumps(CONFIGS[name]))
    return write_checkpoint(folder, config, {**tiny_weights(config), **mtp})


def converted(folder, out, packing=None, **options):
    conversion = convert(Checkpoint(folder, packing=packing), NewFolder(out), **options)
    return out, conversion


def same(found, expected):
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and np.array_equal(found[name], expected[name])
        for name in expected
    )


@pytest.mark.parametrize("packing", [None, Packing(4, 32)], ids=["plain", "4 bits"])
@pytest.mark.parametrize("name", NAMES)
def test_they_are_kept_as_they_are_and_mlx_lm_loads_the_rest(name, packing, tmp_path):
    mtp, progress = mtp_weights(), []
    folder = with_mtp(tmp_path / "plain", name, mtp)
    out, conversion = converted(
        folder, tmp_path / "out", packing, on_progress=lambda *done: progress.append(done)
    )
    assert same(load_file(out / MTP_FILE), mtp)
    assert conversion.mtp_bytes == sum(array.nbytes for array in mtp.values())
    assert progress[-1][0] == progress[-1][1] == conversion.size_bytes + conversion.mtp_bytes
    without, _ = converted(with_mtp(tmp_path / "other", name, {}), tmp_path / "without", packing)
    assert not (without / MTP_FILE).exists()
    assert (logits_of_mlx_lm(out) == logits_of_mlx_lm(without)).all()
    for file in ("config.json", "model.safetensors", "model.safetensors.index.json"):
        assert (out / file).read_bytes() == (without / file).read_bytes()


@pytest.mark.parametrize("prefix", ["model.mtp.", "language_model.mtp.", "model.language_model.mtp."])
def test_they_are_found_under_every_prefix_and_keep_it(prefix, tmp_path):
    mtp = mtp_weights(prefix)
    out, _ = converted(with_mtp(tmp_path / "plain", "qwen3_5-untied", mtp), tmp_path / "out")
    assert same(load_file(out / MTP_FILE), mtp)


def test_a_converted_checkpoint_is_converted_with_them(tmp_path):
    first, _ = converted(with_mtp(tmp_path / "plain", "qwen3_5-untied", mtp_weights()), tmp_path / "first")
    second, conversion = converted(first, tmp_path / "second", Packing(4, 32))
    assert (second / MTP_FILE).read_bytes() == (first / MTP_FILE).read_bytes()
    assert conversion.mtp_bytes


def test_types_that_mlx_does_not_have_are_kept(tmp_path):
    folder = with_mtp(tmp_path / "plain", "qwen3_5-untied", {"mtp.fc.weight": np.arange(64, dtype=np.uint8)})
    path = folder / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b'"U8"', b'"F8_E4M3"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    out, _ = converted(folder, tmp_path / "out")
    (info,) = read_header(out / MTP_FILE).values()
    assert (info.name, info.dtype, info.shape) == ("mtp.fc.weight", "F8_E4M3", (64,))
    assert (out / MTP_FILE).read_bytes()[info.offset :] == bytes(range(64))


def test_a_damaged_file_of_them_is_named(tmp_path):
    folder = with_mtp(tmp_path / "plain", "qwen3_5-untied", {})
    save_file(mtp_weights(), folder / MTP_FILE)
    (folder / MTP_FILE).write_bytes((folder / MTP_FILE).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"mtp\.safetensors is damaged") as caught:
        converted(folder, tmp_path / "out")
    assert caught.value.exit_code == ExitCode.BAD_CHECKPOINT
    assert not (tmp_path / "out").exists()
