"""What a vocabulary knows of its tokens, whatever the order of its file."""

import pytest

from metal_gen.text.tokenization.vocabulary import Vocabulary

ADDED = {5: "<é>"}


@pytest.mark.parametrize(
    "ids", [{"a": 0, "Ġb": 1, "Ã": 3}, {"Ã": 3, "Ġb": 1, "a": 0}], ids=["in order", "not"]
)
def test_tokens_have_ids_and_bytes(ids):
    vocabulary = Vocabulary(ids, ADDED)
    expected = [b"a", b" b", b"", b"\xc3", b"", "<é>".encode()]
    assert [vocabulary.bytes_of(token) for token in range(6)] == expected
    assert vocabulary.bytes_of(99) == b""
    assert vocabulary.all_bytes(6) == expected
    assert vocabulary.all_bytes(2) == expected[:2]
    assert vocabulary.id_of("Ġb") == 1
    assert vocabulary.id_of("<é>") == vocabulary.added_ids["<é>"] == 5
    assert vocabulary.id_of("none") is None


def test_the_most_bytes_of_a_token_are_those_before_normalization():
    assert Vocabulary({}, {}).most_bytes_of_a_token == 1
    assert Vocabulary({"abc": 0}, {}).most_bytes_of_a_token == 3
    # A semicolon may come of a Greek question mark.
    assert Vocabulary({"a;": 0}, {}).most_bytes_of_a_token == 5
    assert Vocabulary({"a": 0}, {1: "<end>"}).most_bytes_of_a_token == 5
