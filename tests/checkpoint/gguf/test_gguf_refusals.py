"""Tests that GGUF files that are damaged, incomplete or unsupported are refused with a reason."""

import os
import struct

import pytest
from gguf_file import gguf_config, gguf_tensors, metadata_of, write_gguf

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.gguf.header import read_gguf_header
from metal_gen.errors import CheckpointError, ExitCode

CONFIG = gguf_config("qwen3", num_hidden_layers=1)
MOE = gguf_config("qwen3_moe", num_hidden_layers=1)


@pytest.fixture(scope="module")
def tensors():
    return gguf_tensors(CONFIG, lambda name: "Q8_0")[0]


@pytest.fixture
def refuse(tmp_path, tensors):
    """Return a function that reports what is wrong with a file of given metadata and tensors."""

    def refused(metadata=None, changed=None, **options):
        given = {**metadata_of(CONFIG), **(metadata or {})}
        given = {name: value for name, value in given.items() if value is not None}
        stored = {name: entry for name, entry in {**tensors, **(changed or {})}.items() if entry is not None}
        return message_of(write_gguf(tmp_path / "x.gguf", given, stored, **options))

    return refused


def message_of(path):
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(path).tokenizer.expect_many_texts()
    assert caught.value.exit_code == ExitCode.BAD_CHECKPOINT
    assert "x.gguf" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


MATRIX = "blk.0.ffn_up.weight"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": "qwen4"}, "general.architecture is 'qwen4'"),
        ({"general.architecture": None}, "general.architecture is None"),
        ({"qwen3.block_count": None}, "qwen3.block_count is missing"),
        ({"qwen3.embedding_length": "many"}, "qwen3.embedding_length must be a whole number"),
        ({"qwen3.attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
        ({"qwen3.attention.value_length": 32}, "attention.value_length is not the size of a head, 64"),
        ({"qwen3.rope.dimension_count": 32}, "rope.dimension_count is not the size of a head, 64"),
        ({"qwen3.rope.scaling.type": "longrope"}, "rope_type 'longrope' is not supported"),
        (
            {"qwen3.rope.scaling.type": "yarn", "qwen3.rope.scaling.attn_factor": 2.0},
            "attn_factor is not 1",
        ),
        ({"general.alignment": 0}, "general.alignment is 0"),
        ({"general.alignment": 48}, "general.alignment is 48, which is not a power of 2"),
        ({"general.alignment": True}, "general.alignment is True"),
        ({"": 1}, "occurs twice, or is empty: ''"),
        ({"qwen3.block_count": 2}, "blk.1.attn_norm.weight is missing"),
        ({"qwen3.block_count": 2_000_000}, "qwen3.block_count must be a whole number from 1 to 10,000"),
        ({"qwen3.block_count": 9_000}, "14 tensors are too few for 9000 layers"),
        ({"qwen3.feed_forward_length": 512}, "is 256 x 256, but metadata requires 512 x 256"),
        ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.model is 'llama', and only 'gpt2' and"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "tokenizer.ggml.pre is 'llama-bpe', and only 'qwen2' and"),
        ({"tokenizer.ggml.add_bos_token": True}, "tokenizer.ggml.bos_token_id is missing"),
        (
            {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 512},
            "tokenizer.ggml.bos_token_id must be a whole number from 0 to 511, not 512",
        ),
        ({"tokenizer.ggml.add_bos_token": 1}, "add_bos_token must be true or false, not 1"),
        ({"tokenizer.ggml.token_type": [3] * 512}, "none of its tokenizer.ggml.tokens has a type"),
        ({"tokenizer.ggml.token_type": [1, 3]}, "it has 512 tokenizer.ggml.tokens and 2"),
        ({"tokenizer.ggml.merges": ["h e l"]}, "tokenizer.ggml.merges must be pairs"),
        ({"tokenizer.ggml.merges": ["h ?!"]}, "cannot be used as a tokenizer"),
        ({"tokenizer.ggml.merges": [1]}, "must be texts"),
    ],
)
def test_invalid_metadata_is_refused(metadata, message, refuse):
    assert message in refuse(metadata)


def test_a_missing_field_of_experts(tmp_path):
    metadata = metadata_of(MOE)
    del metadata["qwen3moe.expert_used_count"]
    path = write_gguf(tmp_path / "x.gguf", metadata, {})
    assert "qwen3moe.expert_used_count is missing" in message_of(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({MATRIX: None}, f"{MATRIX} is missing"),
        ({"token_embd.weight": None}, "it has no matrix token_embd.weight"),
        ({"blk.0.ffn_up.0.weight": ("F32", (1,), bytes(4))}, "ffn_up.0.weight in x.gguf has no place"),
        (
            {MATRIX: ("IQ3_S", (256, 256), bytes(256 * 110))},
            f"{MATRIX} is stored as IQ3_S, and only F32, F16",
        ),
        ({MATRIX: (77, (256, 256), b"")}, f"the type of {MATRIX} has the number 77"),
        ({MATRIX: ("Q8_0", (256, 250), b"")}, "has rows of 250, but Q8_0 has blocks of 32"),
        ({MATRIX: ("F32", (1, 1, 1, 1, 1), bytes(4))}, f"{MATRIX} has 5 axes"),
        ({MATRIX: ("F32", (2**60, 2**60), bytes(4))}, f"{MATRIX} has more numbers than any file"),
        ({MATRIX: ("F32", (2**20, 2**20), bytes(4))}, "it is cut short"),
        ({"x" * 64: ("F32", (1,), bytes(4))}, "the name of a tensor is too long"),
        ({"output_norm.weight": ("Q8_0", (256,), bytes(272))}, "is stored as Q8_0, and only F32, F16, BF16"),
    ],
)
def test_tensors_that_do_not_fit(changed, message, refuse):
    assert message in refuse(changed=changed)


def test_unsupported_versions_are_refused(refuse):
    assert "GGUF of version 1, and only 2 and 3 are supported" in refuse(version=1)
    assert "GGUF of version 50331648" in refuse(version=3 << 24)


def test_a_file_that_is_cut_short_anywhere(tmp_path, tensors):
    path = write_gguf(tmp_path / "x.gguf", metadata_of(CONFIG), tensors)
    whole = path.read_bytes()
    path.write_bytes(whole[:-64])
    last = [*tensors][-1]
    assert f"is damaged: {last} ends at byte" in message_of(path)
    path.write_bytes(whole)
    header = min(tensor.offset for tensor in read_gguf_header(path).tensors.values())
    for end in (4, 20, 24, 200, header // 2, header - 200, header):
        path.write_bytes(whole[:end])
        assert "is damaged" in message_of(path)


def test_a_file_of_another_kind(tmp_path):
    for content in (b"PK\3\4 and more", b"GG", b""):
        (tmp_path / "x.gguf").write_bytes(content)
        assert "is not a GGUF file" in message_of(tmp_path / "x.gguf")


COUNTS = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1)
KEY = struct.pack("<Q", 1) + b"a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack("<4sIQQ", b"GGUF", 3, 2**63, 0), "claims to have 9,223,372,036,854,775,808 tensors"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**63), "tensors and 9,223,372,036,854,775,808 entries"),
        (COUNTS + struct.pack("<Q", 2**63), "cut short within its header"),
        (
            COUNTS + KEY + struct.pack("<IIQ", 9, 8, 2**63),
            "a claims to have 9,223,372,036,854,775,808 items",
        ),
        (COUNTS + KEY + struct.pack("<IIQ", 9, 4, 2**20), "cut short within its header"),
        (COUNTS + KEY + struct.pack("<IIQ", 9, 8, 2**20), "cut short within its header"),
        (COUNTS + KEY + struct.pack("<IIQ", 9, 9, 1), "a has values of a type with the number 9"),
        (COUNTS + KEY + struct.pack("<I", 13), "a has values of a type with the number 13"),
        (COUNTS + struct.pack("<Q", 2) + b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_an_invalid_header_is_refused(content, message, tmp_path):
    (tmp_path / "x.gguf").write_bytes(content)
    assert message in message_of(tmp_path / "x.gguf")


def info(name, offset=0):
    return struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, 8, 0, offset)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (info(b"a") + info(b"a", 32), "two of its tensors have the same name: a"),
        (info(b"a") + info(b"b"), "b begins at byte"),
        (info(b"a", 32) + info(b"b"), "a begins at byte"),
        (info(b"a") + info(b"b", 64), "b begins at byte"),
        (info(b"a") + info(b"b", 2**64 - 32), "b begins at byte"),
    ],
)
def test_tensors_that_do_not_follow_each_other(tensors, message, tmp_path):
    (tmp_path / "x.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 2, 0) + tensors + bytes(128))
    assert message in message_of(tmp_path / "x.gguf")


def test_a_duplicate_key_is_refused(tmp_path):
    entry = KEY + struct.pack("<II", 4, 5)
    (tmp_path / "x.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + 2 * entry)
    assert "a key of its metadata occurs twice, or is empty: 'a'" in message_of(tmp_path / "x.gguf")


def test_the_items_of_all_lists_are_limited(tmp_path):
    """Each item takes much more memory than space in the file."""
    lists = [struct.pack("<Q", 1) + name + struct.pack("<IIQ", 9, 0, 2_500_000) for name in (b"a", b"b")]
    content = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + b"".join(entry + bytes(2_500_000) for entry in lists)
    (tmp_path / "x.gguf").write_bytes(content)
    assert "b claims to have 2,500,000 items" in message_of(tmp_path / "x.gguf")


def test_other_than_regular_files_are_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "x.gguf")
    with pytest.raises(CheckpointError, match="Not a regular file"):
        read_gguf_header(tmp_path / "x.gguf")
