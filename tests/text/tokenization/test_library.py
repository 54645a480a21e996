"""Tests that state, endless expressions and damage in a tokenizer.json cannot affect a prompt."""

import json

import pytest
from tokenizers import Tokenizer as HubTokenizer

from metal_gen.errors import CheckpointError, UsageError
from metal_gen.text.tokenization import library
from metal_gen.text.tokenization.library import repeats_choices
from metal_gen.text.tokenizer import FEW_TEXTS

pytest_plugins = ("fixtures_text",)

CUT = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
FILLED = {
    "strategy": {"Fixed": 32},
    "direction": "Left",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "!",
}


@pytest.mark.parametrize(
    "state", [{"truncation": CUT}, {"padding": FILLED}, {"truncation": CUT, "padding": FILLED}]
)
@pytest.mark.parametrize("text", ["hi", "a prompt of some length"])
def test_a_prompt_is_neither_truncated_nor_padded(open_tokenizer, state, text):
    tokenizer = open_tokenizer(lambda document: document.update(state))
    for _ in range(FEW_TEXTS + 2):
        assert tokenizer.encode(text, add_special_tokens=True) == list(text.encode())
    tokenizer = open_tokenizer(lambda document: document.update(state))
    tokenizer.expect_many_texts()
    assert tokenizer.encode(text, add_special_tokens=True) == list(text.encode())


def test_merges_are_not_dropped_at_random(open_tokenizer):
    def change(document):
        model = document["model"]
        model["vocab"]["he"] = len(model["vocab"])
        for entry in document["added_tokens"]:
            entry["id"] += 1
        model.update(merges=[["h", "e"]], dropout=0.9)

    tokenizer = open_tokenizer(change)
    assert tokenizer.encode("he" * 50, add_special_tokens=False) == [256] * 50


def damage(document, place, value):
    *path, last = place
    for name in path:
        document = document[name]
    document[last] = value


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("model", "merges"), [[1, "a"]]),
        (("model", "merges"), [[[], []]]),
        (("model", "merges"), [["s", "e"]]),
        (("model", "merges"), [["a"]]),
        (("model", "merges"), 5),
        (("model", "vocab", "a"), -5),
        (("model", "vocab", "a"), 2**40),
        (("model", "vocab", "a"), "1"),
        (("model", "vocab"), []),
        (("model",), None),
        (("model", "type"), "WordLevel"),
        (("added_tokens", 0, "content"), []),
        (("added_tokens", 0, "id"), -1),
        (("added_tokens",), [5]),
        (
            ("pre_tokenizer",),
            {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
        ),
        (("pre_tokenizer",), {"type": "Unknown"}),
        (("decoder",), None),
        (("normalizer",), {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        (("truncation",), 5),
    ],
    ids=str,
)
def test_a_damaged_file_is_refused_at_the_latest_when_a_text_needs_it(open_tokenizer, place, value):
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.json (cannot be used as|is not byte-level|has token ids)"
    ):
        open_tokenizer(lambda document: damage(document, place, value)).expect_many_texts()


@pytest.mark.parametrize("place", ["merges", "vocab"])
def test_the_first_texts_report_damage_too(open_tokenizer, place):
    """The first texts use tokenizers built from a part of the file."""
    changed = {"merges": [["s", "e"]], "vocab": {"se": -5}}[place]

    def change(document):
        if place == "merges":
            document["model"]["merges"] = changed
        else:
            document["model"]["vocab"].update(changed)

    with pytest.raises(CheckpointError):
        open_tokenizer(change).encode("use", add_special_tokens=False)


def test_a_file_without_tokens_is_refused(open_tokenizer):
    def empty(document):
        document["model"]["vocab"], document["added_tokens"] = {}, []

    with pytest.raises(CheckpointError, match="no tokens"):
        open_tokenizer(empty)


@pytest.mark.parametrize(
    ("pattern", "repeats"),
    [
        (r"(a+)+", True),
        (r"(a|aa|aaa)+$", True),
        (r"((?:a?)b?)*", True),
        (r"(a{1,3}){2,}", True),
        (r"(?:(a|b))*", True),
        (
            r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            False,
        ),
        (r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", False),
        (r"[\p{Lu}\p{M}]*[\p{Ll}\p{M}]+(?i:'s|'t|'re)?", False),
        (r"[(|*+]+\(+\|*", False),
        (r"(?:ab)+(c|d)", False),
    ],
)
def test_endless_expressions_are_recognized(open_tokenizer, pattern, repeats):
    assert repeats_choices(pattern) == repeats
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    if repeats:
        with pytest.raises(CheckpointError, match="may never end"):
            open_tokenizer(
                lambda document: document.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [split]})
            )


@pytest.mark.parametrize("times", [1, 5])
def test_normalizers_that_make_a_text_much_longer_are_refused(open_tokenizer, times):
    longer = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
    normalizer = {"type": "Sequence", "normalizers": [longer] * times}
    if times > 1:
        with pytest.raises(CheckpointError, match="times longer"):
            open_tokenizer(lambda document: document.update(normalizer=normalizer))
    else:
        tokenizer = open_tokenizer(lambda document: document.update(normalizer=normalizer))
        assert tokenizer.encode("ab", add_special_tokens=False) == list(b"a" * 100 + b"b")


def test_a_text_that_the_library_cannot_encode_is_refused(open_tokenizer, monkeypatch):
    """Errors of the library's compiled part are not an Exception."""

    class PanicException(BaseException):
        pass

    tokenizer = open_tokenizer()
    tokenizer.expect_many_texts()

    class Panicking:
        def encode(self, text, **options):
            raise PanicException("retry-limit-in-match over")

    monkeypatch.setattr(tokenizer, "_tokenizer_for", lambda text: Panicking())
    with pytest.raises(UsageError, match=r"cannot be encoded with tokenizer\.json: retry-limit"):
        tokenizer.encode("hi", add_special_tokens=False)


def test_an_interrupt_is_not_a_library_error():
    with pytest.raises(KeyboardInterrupt), library.library_errors():
        raise KeyboardInterrupt


def test_long_whitespace_is_refused_before_the_library_fails(open_tokenizer, monkeypatch):
    monkeypatch.setattr(library, "LONGEST_RUN", 20)
    monkeypatch.setattr(library, "RUN", library.re.compile(r"\s{20}"))
    tokenizer = open_tokenizer()
    with pytest.raises(UsageError, match="whitespace characters in a row"):
        tokenizer.encode("a" + " \n" * 10, add_special_tokens=False)
    assert tokenizer.encode("a " * 20, add_special_tokens=False) == list(b"a " * 20)


def test_the_ids_of_added_tokens_are_the_library_s_for_few_texts_and_many(open_tokenizer, tmp_path):
    def renumber(document):
        document["added_tokens"][0]["id"] += 9

    tokenizer = open_tokenizer(renumber)
    few = tokenizer.encode("<|im_start|>", add_special_tokens=False)
    library_s = HubTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert few == library_s.encode("<|im_start|>").ids
    assert json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"][0]["id"] != few[0]
