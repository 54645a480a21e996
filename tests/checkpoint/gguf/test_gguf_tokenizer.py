"""Tests that the tokenizer of a GGUF file equals the one that the file was made from."""

import json
import os
from pathlib import Path

import pytest
from gguf_file import TOKENS, gguf_tensors, metadata_of, tokenizer_metadata, write_gguf, write_tiny_gguf
from gguf_file import gguf_config as tiny_gguf_config
from tokenizers import Tokenizer as HubTokenizer

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.gguf.header import GgufHeader
from metal_gen.checkpoint.gguf.tokenizer import end_ids, tokenizer_document
from metal_gen.text.tokenizer import Tokenizer

REAL = os.environ.get("METAL_GEN_TEST_TOKENIZER")
TEXTS = [
    "hello world, hello",
    "<|im_start|>user\nhello<|im_end|>\n<think>\n\n</think>",
    "  two leading spaces, and trailing  ",
    "tabs\tand\r\nnewlines\n\n\n",
    "1234567890 3.14 don't I'LL WE'Ve",
    "e\u0301 é ﬁ Å \u017f '\u017f",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 한국어, 世界, नमस्ते, עברית",
    "[PAD300] <|endoftext <|fim_prefix|>def f():<|fim_suffix|>",
    "\x00\u200b\ufeff",
    "",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint whose tokenizer has five merges."""
    folder = tmp_path_factory.mktemp("gguf")
    return Checkpoint(write_tiny_gguf(folder, tiny_gguf_config("qwen3"), lambda name: "Q8_0")[0])


def test_merges_are_applied_in_their_order(tiny):
    ids = tiny.tokenizer.encode("hello w", add_special_tokens=True)
    assert [TOKENS[token] for token in ids] == ["hello", "Ġw"]
    assert [TOKENS[token] for token in tiny.tokenizer.encode("hel", add_special_tokens=True)] == ["he", "l"]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_of_few_texts_and_of_many_are_the_same(text, tiny):
    few, many = (Tokenizer(tokenizer_document(header_of(tiny)), 512) for _ in range(2))
    many.expect_many_texts()
    ids = few.encode(text, add_special_tokens=True)
    assert ids == many.encode(text, add_special_tokens=True)
    shown = b"".join(few.token_bytes(token) for token in ids).decode()
    for special in ("<|im_start|>", "<|im_end|>"):
        text = text.replace(special, "")
    assert shown == normalized(text)


def header_of(checkpoint, **changes):
    changes = {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    return GgufHeader(checkpoint.folder, tokenizer_metadata(512) | changes, {})


def normalized(text):
    """Normalize a text as the tokenizer does, which composes characters."""
    import unicodedata

    return unicodedata.normalize("NFC", text)


def test_control_tokens_are_special_and_not_shown(tiny):
    tokenizer = tiny.tokenizer
    start, think = tokenizer.id_of("<|im_start|>"), tokenizer.id_of("<think>")
    assert tokenizer.encode("<|im_start|><think>", add_special_tokens=True) == [start, think]
    assert (tokenizer.token_bytes(start), tokenizer.token_bytes(think)) == (b"", b"<think>")
    assert tokenizer.eos_id == tokenizer.id_of("<|im_end|>")
    assert tokenizer.id_of("[PAD300]") is None


@pytest.mark.parametrize("kind", [1, 2, 4, 5])
def test_known_control_tokens_are_special_whatever_their_type(kind, tiny):
    kinds = list(header_of(tiny).metadata["tokenizer.ggml.token_type"])
    for text in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        kinds[TOKENS.index(text)] = kind
    end = TOKENS.index("<|endoftext|>")
    header = header_of(tiny, token_type=kinds, eos_token_id=end)
    assert tokenizer_document(header).document == tokenizer_document(header_of(tiny)).document
    assert end_ids(header.metadata) == {end, TOKENS.index("<|im_end|>")}


@pytest.mark.parametrize("name", ["deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"])
def test_equivalent_splittings_are_accepted(name, tiny):
    document = tokenizer_document(header_of(tiny, pre=name)).document
    assert document == tokenizer_document(header_of(tiny)).document


def test_without_a_name_the_splitting_is_assumed_with_a_notice(tiny, tmp_path):
    config = tiny_gguf_config("qwen3")
    metadata = metadata_of(config)
    del metadata["tokenizer.ggml.pre"]
    stored, _ = gguf_tensors(config, lambda name: "Q8_0")
    unnamed = Checkpoint(write_gguf(tmp_path / "unnamed.gguf", metadata, stored))
    assert "tokenizer.ggml.pre" in unnamed.notices[0]
    assert tiny.notices == ()
    ids = [each.tokenizer.encode("".join(TEXTS), add_special_tokens=True) for each in (unnamed, tiny)]
    assert ids[0] == ids[1]


def test_marks_are_parts_of_words_in_qwen3_5(tiny):
    """The vowel signs of Hindi are marks: Qwen2 begins a new word at each, and Qwen3.5 does not."""

    def words(pre):
        document = tokenizer_document(header_of(tiny, pre=pre)).document
        splitter = HubTokenizer.from_str(json.dumps(document)).pre_tokenizer
        return len(splitter.pre_tokenize_str("नमस्ते a"))

    assert (words("qwen2"), words("qwen35")) == (4, 2)


def test_a_file_that_asks_for_it_gets_a_token_in_front_of_raw_texts(tiny):
    begin = TOKENS.index("<|endoftext|>")
    header = header_of(tiny, add_bos_token=True, bos_token_id=begin)
    for expect_many in (False, True):
        tokenizer = Tokenizer(tokenizer_document(header), 512)
        if expect_many:
            tokenizer.expect_many_texts()
        for text in TEXTS:
            plain = tiny.tokenizer.encode(text, add_special_tokens=True)
            assert tokenizer.encode(text, add_special_tokens=True) == [begin, *plain]
            assert tokenizer.encode(text, add_special_tokens=False) == plain


def test_the_chat_template_is_the_file_s(tiny):
    assert tiny.chat_template.render([{"role": "user", "content": "hi"}]) == "<|im_start|>hi<|im_end|>"


@pytest.mark.skipif(REAL is None, reason="METAL_GEN_TEST_TOKENIZER names no folder")
def test_text_is_encoded_and_decoded_as_by_the_original():
    """Convert the real tokenizer.json as llama.cpp does, and compare the result with it."""
    document = json.loads(Path(REAL, "tokenizer.json").read_bytes())
    metadata = metadata_of(tiny_gguf_config("qwen3")) | real_metadata(document)
    ours = Tokenizer(tokenizer_document(GgufHeader(Path("real.gguf"), metadata, {})), 151_936)
    ours.expect_many_texts()
    real = Tokenizer(Path(REAL), 151_936)
    library = HubTokenizer.from_file(str(Path(REAL, "tokenizer.json")))
    for text in (*TEXTS, "".join(TEXTS)):
        assert ours.encode(text, add_special_tokens=True) == library.encode(text).ids
    assert all(ours.token_bytes(token) == real.token_bytes(token) for token in range(151_936))


def real_metadata(document):
    vocabulary, added = document["model"]["vocab"], document["added_tokens"]
    texts = {token: text for text, token in vocabulary.items()}
    kinds = dict.fromkeys(texts, 1)
    texts |= {entry["id"]: entry["content"] for entry in added}
    kinds |= {entry["id"]: 3 if entry["special"] else 4 for entry in added}
    ids = range(151_936)
    return {
        "tokenizer.ggml.tokens": [texts.get(token, f"[PAD{token}]") for token in ids],
        "tokenizer.ggml.token_type": [kinds.get(token, 5) for token in ids],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in document["model"]["merges"]],
    }
