"""A long text is encoded in parts, whose tokens are those of the whole, and cut into windows."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

from metal_gen.scoring import long_text
from metal_gen.scoring.long_text import encode_parts
from metal_gen.scoring.windows import windows
from metal_gen.text.tokenizer import Tokenizer as OwnTokenizer

# Qwen2's and Qwen3's.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = [
    "a fox",
    "don't",
    "\n",
    "\n\n  ",
    " 42 ",
    "(x);",
    "\u72d0\u72f8\u3002",
    "e\u0301",
    "...",
    "\t",
    "\r\n",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A byte-level BPE with Qwen's pattern and merges of its own."""
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = Sequence(
        [Split(Regex(PATTERN), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trained.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=600, initial_alphabet=ByteLevel.alphabet(), show_progress=False, min_frequency=1
    )
    trained.train_from_iterator(["".join(WORDS[i:] + WORDS[:i]) * 3 for i in range(len(WORDS))], trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    trained.save(str(folder / "tokenizer.json"))
    return OwnTokenizer(folder, 600)


def joined(tokenizer, pieces):
    return [token for part in encode_parts(tokenizer, pieces) for token in part]


@pytest.mark.parametrize("size", [10, 40])
def test_tokens_of_parts_are_those_of_the_whole(tokenizer, monkeypatch, size):
    monkeypatch.setattr(long_text, "SHORTEST_PART", size)
    monkeypatch.setattr(long_text, "LONGEST_PART", 2 * size)

    @given(st.lists(st.sampled_from(WORDS), max_size=60))
    def check(words):
        # With the end of a word in every part; without one, a part is cut anywhere.
        pieces = [f"{word}a, " for word in words]
        text = "".join(pieces)
        assert joined(tokenizer, pieces) == tokenizer.encode(text, add_special_tokens=True)
        assert joined(tokenizer, [text]) == joined(tokenizer, pieces)

    check()


def test_a_word_that_is_longer_than_a_part_is_cut(tokenizer, monkeypatch):
    monkeypatch.setattr(long_text, "SHORTEST_PART", 10)
    monkeypatch.setattr(long_text, "LONGEST_PART", 20)
    parts = list(encode_parts(tokenizer, ["x" * 90]))
    assert len(parts) == 5
    assert b"".join(tokenizer.token_bytes(token) for part in parts for token in part) == b"x" * 90


@given(st.integers(0, 60), st.lists(st.integers(0, 60), max_size=3), st.integers(2, 20), st.integers(1, 19))
def test_windows_ask_for_every_token_once_with_as_much_context_as_they_have(count, cuts, size, stride):
    stride = min(stride, size - 1)
    text = list(range(count))
    places = sorted({0, *[min(cut, count) for cut in cuts], count})
    parts = [text[begin:end] for begin, end in pairwise(places)]
    found = list(windows(parts, size, stride))
    assert [token for request in found for token in request.targets] == text[1:]
    for number, request in enumerate(found):
        assert request.shared == []
        assert len(request.own) < size
        assert len(request.own) == request.skipped + len(request.targets)
        # Each begins where the one before does, and a stride later.
        assert request.own == text[number * stride : number * stride + len(request.own)]
        assert request.own[-1] + 1 == request.targets[-1]
