"""Tests encoding of text, and the bytes of tokens."""

import unicodedata
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text_checkpoint import END_THINK

from metal_gen.checkpoint.bundled import BUNDLED_FOLDER
from metal_gen.errors import CheckpointError, DoesNotFitError
from metal_gen.text import tokenizer as tokenizer_module
from metal_gen.text.detokenizer import Detokenizer
from metal_gen.text.tokenization.library import build_tokenizer, encode_text, least_tokens
from metal_gen.text.tokenizer import Tokenizer

pytest_plugins = ("fixtures_text",)


@pytest.mark.parametrize("text", ["<café>", "straße", "ÿ", "<日本>", "a b", "\u0120", "<x>", "🦊"])
def test_an_added_token_stands_for_its_own_text(open_tokenizer, text):
    tokenizer = open_tokenizer(added=[text])
    (token,) = tokenizer.encode(text, add_special_tokens=False)
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.add(token) + detokenizer.finish() == text


def test_a_few_ids_beyond_the_embedding_just_cannot_be_in_a_prompt(open_tokenizer):
    whole, cut = open_tokenizer(), open_tokenizer(vocab_size=END_THINK)
    text = "hi <|im_end|><think>"
    assert cut.encode(text, add_special_tokens=True) == whole.encode(text, add_special_tokens=True)
    with pytest.raises(CheckpointError, match=f"gives token {END_THINK}, but the model's vocabulary ends at"):
        cut.encode("hi </think>", add_special_tokens=True)


def test_a_tokenizer_of_a_larger_model_is_refused(open_tokenizer):
    with pytest.raises(CheckpointError, match="has 60 token ids, up to 259, that are not in the model's"):
        open_tokenizer(vocab_size=200)


@cache
def bundled():
    return Tokenizer(BUNDLED_FOLDER, 4096)


@settings(max_examples=200)
@given(
    # Normalization shortens these most: singletons, and letters with several marks.
    st.text(
        st.characters(codec="utf-8") | st.sampled_from("K\u212a\u1fef\u037e\u1fbe\u0308\u0301한"), max_size=40
    )
)
def test_most_bytes_is_an_upper_bound(text):
    for form in ("NFC", "NFD"):
        written = unicodedata.normalize(form, text)
        tokens = bundled().encode(written, add_special_tokens=False)
        assert len(written.encode()) <= bundled().most_bytes(len(tokens))


def test_most_bytes_follows_from_the_longest_token(open_tokenizer):
    assert open_tokenizer(added=["a" * 31]).most_bytes(100) == 3100
    assert open_tokenizer(added=["é" * 31]).most_bytes(1) >= 62


WORDS = ["a ", "fox", "  ", "\n", "'s", "é", "e\u0301", "한", "<|im_end|>", "7", "..."]


@cache
def bundled_whole():
    return build_tokenizer(BUNDLED_FOLDER / "tokenizer.json")


@settings(max_examples=100)
@given(st.lists(st.sampled_from(WORDS), max_size=30).map("".join) | st.text(max_size=60), st.integers(0, 60))
def test_least_tokens_is_a_lower_bound(text, cut):
    whole = bundled_whole()
    least = least_tokens(whole, text[:cut], len("<|endoftext|>"))
    assert least <= len(encode_text(whole, text, add_special_tokens=False))


def test_a_long_text_is_refused_by_its_beginning(monkeypatch):
    tokenizer = Tokenizer(BUNDLED_FOLDER, 4096)
    text = "a fox and an owl; " * 100
    count = len(tokenizer.encode(text, add_special_tokens=False))
    monkeypatch.setattr(tokenizer_module, "LONG_TEXT", 100)
    assert len(tokenizer.encode(text, add_special_tokens=False, most_tokens=count)) == count
    monkeypatch.setattr(tokenizer_module, "encode_text", None)
    with pytest.raises(DoesNotFitError, match="1,800 characters does not fit: it has more than 90 "):
        tokenizer.encode(text, add_special_tokens=False, most_tokens=90)
