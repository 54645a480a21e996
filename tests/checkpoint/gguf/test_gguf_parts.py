"""Tests GGUF files in several parts: all parts together are one model."""

import numpy as np
import pytest
from gguf_file import gguf_config, gguf_tensors, metadata_of, write_gguf, write_parts
from tiny_checkpoint import write_checkpoint

from metal_gen.batch.output.fingerprint import checkpoint_digest
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.cli.output.model_report import describe_model
from metal_gen.errors import CheckpointError, ExitCode
from metal_gen.files.gguf_names import gguf_files

CONFIG = gguf_config("qwen3", num_hidden_layers=1)
# The first part has no tensors, as `llama-gguf-split --no-tensor-first-split` leaves it.
COUNTS = (0, 5, 9)


@pytest.fixture(scope="module")
def tensors():
    return gguf_tensors(CONFIG, lambda name: "Q8_0")


@pytest.fixture
def parts(tensors, tmp_path):
    return write_parts(tmp_path, metadata_of(CONFIG), tensors[0], COUNTS)


def numbers_of(path):
    return np.array(Checkpoint(path).weights.load("float32").layers[0].mlp.down.weight.dequantized())


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(path)
    assert caught.value.exit_code == ExitCode.BAD_CHECKPOINT
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message


def test_any_part_and_their_folder_are_the_whole_model(parts, tensors, tmp_path):
    plain = write_checkpoint(tmp_path / "plain", CONFIG, tensors[1])
    expected = Checkpoint(plain).weights.load("float32").layers[0].mlp.down.weight.numbers
    for path in (*parts, tmp_path):
        assert np.allclose(numbers_of(path), np.array(expected), atol=1e-6)
        assert Checkpoint(path).folder == parts[0]
    assert Checkpoint(parts[1]).tokenizer.vocab_size == CONFIG["vocab_size"]


def test_all_parts_are_shown_and_make_the_model_what_it_is(parts, tensors, tmp_path):
    details, problem = describe_model(str(parts[2]))
    assert problem is None
    assert [*details["files"]] == [part.name for part in parts]
    before = checkpoint_digest(Checkpoint(parts[0]))
    assert checkpoint_digest(Checkpoint(parts[1])) == before
    metadata = {**metadata_of(CONFIG), "tokenizer.chat_template": "another"}
    write_parts(tmp_path, metadata, tensors[0], COUNTS)
    assert checkpoint_digest(Checkpoint(parts[0])) != before


def test_a_missing_part_is_named(parts):
    parts[2].unlink()
    for part in parts[:2]:
        assert "is one of 3 parts, and others are missing: tiny-00003-of-00003.gguf" in refusal(part)
    parts[0].unlink()
    assert "missing: tiny-00001-of-00003.gguf, tiny-00003-of-00003.gguf" in refusal(parts[0].parent)


def test_a_part_of_another_file_is_no_part(parts, tensors, tmp_path):
    parts[1].write_bytes(parts[2].read_bytes())
    assert "it says that it is not part 2 of 3" in refusal(parts[0])
    write_parts(tmp_path, metadata_of(CONFIG), tensors[0], COUNTS)
    write_gguf(parts[2], {}, {})
    assert "it says that it is not part 3 of 3" in refusal(parts[0])


def test_tensors_are_there_once_and_all_of_them(parts, tensors):
    split = {"split.no": 2, "split.count": 3, "split.tensors.count": 14}
    name = next(iter(tensors[0]))
    write_gguf(parts[2], split, {name: tensors[0][name]})
    assert f"{name} is in another part too" in refusal(parts[0])
    write_gguf(parts[2], split, {})
    assert "its parts should have 14 tensors, but they have 5" in refusal(parts[0])


def test_a_part_under_another_name_is_refused(parts):
    other = parts[1].rename(parts[1].with_name("other.gguf"))
    assert "it is one of 3 parts, but its name is not that of a part" in refusal(other)
    wrong = parts[0].rename(parts[0].with_name("tiny-00001-of-99999.gguf"))
    assert "it is one of 3 parts, but its name is not that of a part" in refusal(wrong)


@pytest.mark.parametrize("count", [100_000, 2**31, 1.5, True, "three", [3]])
def test_invalid_counts_are_refused(count, tensors, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", {**metadata_of(CONFIG), "split.count": count}, tensors[0])
    assert refusal(path) == f"{path} is damaged: split.count is {count!r}"


def test_files_of_several_models_are_told_apart(parts, tensors, tmp_path):
    other = write_parts(tmp_path, metadata_of(CONFIG), tensors[0], (14, 0), name="other")
    assert gguf_files(tmp_path) == [other[0], parts[0]]
    assert "has several GGUF files: other-00001-of-00002.gguf, tiny-00001-of-00003.gguf" in refusal(tmp_path)
