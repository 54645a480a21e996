"""Tests that joined pieces equal the decoding of all tokens at once, and that every piece is final."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HubTokenizer

from metal_gen.checkpoint.bundled import BUNDLED_FOLDER
from metal_gen.text.detokenizer import Detokenizer
from metal_gen.text.tokenizer import Tokenizer

REAL = os.environ.get("METAL_GEN_TEST_TOKENIZER")
TEXTS = [
    " hello world",
    "  two leading spaces",
    "\x00NUL\x00",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 한국어, 世界, नमस्ते",
    "tabs\tand\r\nnewlines\n\n\n",
    "<think>not special</think>",
    "",
]


@pytest.fixture(
    scope="module",
    params=[
        "bundled",
        pytest.param(
            "real", marks=pytest.mark.skipif(REAL is None, reason="METAL_GEN_TEST_TOKENIZER names no folder")
        ),
    ],
)
def both(request):
    """This project's tokenizer and the library's own, for the same file."""
    folder = BUNDLED_FOLDER if request.param == "bundled" else Path(REAL)
    library = HubTokenizer.from_file(str(folder / "tokenizer.json"))
    return Tokenizer(folder, vocab_size=200_000), library


def stream(tokenizer, ids):
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.add(token) for token in ids), detokenizer.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(both, text):
    tokenizer, _ = both
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert "".join(stream(tokenizer, ids)) == text


@settings(max_examples=300)
@given(data=st.data())
def test_any_tokens_decode_as_the_library_decodes_them(both, data):
    tokenizer, library = both
    size = library.get_vocab_size()
    ids = data.draw(st.lists(st.integers(0, size + 300), max_size=40))
    joined = "".join(stream(tokenizer, ids))
    assert joined == library.decode(ids, skip_special_tokens=True)


@settings(max_examples=200)
@given(text=st.text(max_size=60))
def test_any_text_streams_in_whole_characters(both, text):
    tokenizer, library = both
    ids = library.encode(text, add_special_tokens=False).ids
    pieces = stream(tokenizer, ids)
    assert "".join(pieces) == library.decode(ids, skip_special_tokens=True)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def single_bytes(tokenizer, library, data):
    """Return the token ids that stand for one byte each."""
    by_bytes = {tokenizer.token_bytes(token): token for token in range(library.get_vocab_size())}
    return [by_bytes[bytes([byte])] for byte in data]


def test_an_emoji_split_at_every_byte_is_held_back_until_whole(both):
    tokenizer, library = both
    ids = single_bytes(tokenizer, library, "a🦊b".encode())
    assert stream(tokenizer, ids) == ["a", "", "", "", "🦊", "b", ""]


def test_invalid_utf8_becomes_replacement_characters(both):
    tokenizer, library = both
    ids = single_bytes(tokenizer, library, b"a\xffb\xe4\xb8c\xf0\x9f")
    assert "".join(stream(tokenizer, ids)) == "a\ufffdb\ufffdc\ufffd"


def test_special_tokens_and_ids_beyond_the_vocabulary_are_silent(both):
    tokenizer, library = both
    end = tokenizer.id_of("<|im_end|>")
    assert tokenizer.token_bytes(end) == b""
    assert tokenizer.token_bytes(library.get_vocab_size() + 5) == b""
    assert tokenizer.eos_id is not None
