"""Text to token ids, and what a token's bytes are."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text_checkpoint import END_THINK

from metal_gen.checkpoint.bundled import BUNDLED_FOLDER
from metal_gen.errors import CheckpointError
from metal_gen.text.detokenizer import Detokenizer
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
    with pytest.raises(CheckpointError, match=f"gives token {END_THINK} and the model's vocabulary ends at"):
        cut.encode("hi </think>", add_special_tokens=True)


def test_a_tokenizer_of_a_larger_model_is_refused(open_tokenizer):
    with pytest.raises(CheckpointError, match="has 60 token ids, up to 259, that are not in the model's"):
        open_tokenizer(vocab_size=200)


@settings(max_examples=200, deadline=None)
@given(
    # What normalizing makes shortest: singletons, and letters with several marks.
    st.text(
        st.characters(codec="utf-8") | st.sampled_from("K\u212a\u1fef\u037e\u1fbe\u0308\u0301한"), max_size=40
    )
)
def test_no_text_of_so_few_tokens_has_more_bytes(text):
    tokenizer = Tokenizer(BUNDLED_FOLDER, 4096)
    for form in ("NFC", "NFD"):
        written = unicodedata.normalize(form, text)
        tokens = tokenizer.encode(written, add_special_tokens=False)
        assert len(written.encode()) <= tokenizer.most_bytes(len(tokens))


def test_the_bound_of_bytes_is_that_of_the_longest_token(open_tokenizer):
    assert open_tokenizer(added=["a" * 31]).most_bytes(100) == 3100
    assert open_tokenizer(added=["é" * 31]).most_bytes(1) >= 62
