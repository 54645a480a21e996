"""Tests that a reduced tokenizer encodes its text like the whole one."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HubTokenizer

from metal_gen.checkpoint.bundled import BUNDLED_FOLDER
from metal_gen.text.tokenization import reduced_tokenizer
from metal_gen.text.tokenization.reduced_tokenizer import TokenizerReducer, is_plain
from metal_gen.text.tokenizer import FEW_TEXTS, Tokenizer

FOLDERS = [BUNDLED_FOLDER]
if "METAL_GEN_TEST_TOKENIZER" in os.environ:
    FOLDERS.append(Path(os.environ["METAL_GEN_TEST_TOKENIZER"]))
DOCUMENTS = [json.loads((folder / "tokenizer.json").read_bytes()) for folder in FOLDERS]
PAIRS = [
    (TokenizerReducer(document), HubTokenizer.from_file(str(folder / "tokenizer.json")))
    for document, folder in zip(DOCUMENTS, FOLDERS, strict=True)
]
FRAGMENTS = st.sampled_from(
    [
        "<|im_start|>",
        "<|im_end|>",
        "<think>",
        "</think>",
        "<|endoftext|>",
        "<|im_",
        "user",
        "assistant",
        "hello",
        "HELLO",
        "'ve",
        "12345",
        "straße",
        "naïve",
        "東京",
        "日本語",
        "🦊",
        "👩\u200d👧",
        "नमस्ते",
        "Ġ",
        "̸",
        "é",
        "\xa0",
        "\t",
        "\n",
        "\r\n",
        "\x00",
        "\x7f",
        "�",
        "...",
        "---",
        "#include",
    ]
)
TEXTS = st.lists(st.one_of(FRAGMENTS, st.text(max_size=12), st.just(" "))).map("".join)


@settings(max_examples=120)
@given(TEXTS)
@example("")
@example("<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
@example(">\u0338<|im_end|>\u0338")
@example("a" * 300)
def test_any_text_is_encoded_as_by_the_whole_tokenizer(text):
    for reducer, whole in PAIRS:
        for special in (False, True):
            reduced = reducer.reduced_for(text).encode(text, add_special_tokens=special)
            assert reduced.ids == whole.encode(text, add_special_tokens=special).ids


def test_the_tokenizers_here_can_be_reduced():
    assert all(map(is_plain, DOCUMENTS))


@pytest.mark.parametrize(
    "change",
    [
        {"ignore_merges": True},
        {"dropout": 0.1},
        {"byte_fallback": True},
        {"type": "Unigram"},
        {"merges": ["a b"]},
        {"merges": [["a", "b", "c"]]},
        {"vocab": {"a": "1"}},
        {"vocab": []},
    ],
    ids=str,
)
def test_other_tokenizers_are_not_reduced(change):
    assert not is_plain({**DOCUMENTS[0], "model": {**DOCUMENTS[0]["model"], **change}})


def test_damaged_tokenizers_are_not_reduced():
    for document in (
        {},
        {"model": []},
        {"model": {}, "added_tokens": [1]},
        {**DOCUMENTS[0], "added_tokens": None},
    ):
        assert not is_plain(document)


def test_a_text_of_too_many_parts_needs_the_whole_tokenizer(monkeypatch):
    monkeypatch.setattr(reduced_tokenizer, "MOST_PARTS", 20)
    reducer, whole = PAIRS[0]
    assert reducer.reduced_for("a story of a fox") is None
    assert reducer.reduced_for("a fox") is not None
    text = "a story of a fox"
    assert Tokenizer(BUNDLED_FOLDER, 4096).encode(text, add_special_tokens=False) == whole.encode(text).ids


def test_many_texts_need_the_whole_tokenizer():
    tokenizer = Tokenizer(BUNDLED_FOLDER, 4096)
    for number in range(FEW_TEXTS + 2):
        assert ("_whole" in vars(tokenizer)) == (number > FEW_TEXTS)
        text = f"The fox found {number} lanterns."
        assert tokenizer.encode(text, add_special_tokens=False) == PAIRS[0][1].encode(text).ids


def test_ids_out_of_order_are_found_too(tmp_path):
    document = json.loads((BUNDLED_FOLDER / "tokenizer.json").read_bytes())
    vocabulary = document["model"]["vocab"]
    document["model"]["vocab"] = dict(reversed(vocabulary.items()))
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    shutil.copy(BUNDLED_FOLDER / "tokenizer_config.json", tmp_path)
    ours, other = Tokenizer(tmp_path, 4096), Tokenizer(BUNDLED_FOLDER, 4096)
    assert [ours.token_bytes(token) for token in range(4096)] == [
        other.token_bytes(token) for token in range(4096)
    ]
    assert ours.id_of("the") == other.id_of("the")
