"""Tests encoding rows: an impossible request fails only its own row, and the longest row is known."""

from types import SimpleNamespace

import pytest

from metal_gen.batch.input.encoding import RowEncoder
from metal_gen.batch.input.rows import BatchRow, RowErrorCode, RowForm
from metal_gen.config.settings import Settings
from metal_gen.errors import CheckpointError, UsageError
from metal_gen.text.chat_template import MessagesRefusedError


class Letters:
    """A tokenizer with one token per letter that raises errors for some texts."""

    def __init__(self, errors):
        self.errors = errors

    def expect_many_texts(self):
        pass

    def encode(self, text, **options):
        if text in self.errors:
            raise self.errors[text]
        return [ord(letter) for letter in text]


class Plan(SimpleNamespace):
    """A plan for a machine with room for 1,000 tokens in all slots together."""

    def __init__(self, slots=4):
        super().__init__(cache=SimpleNamespace(max_seq_len=100), slots=slots)

    @property
    def largest_max_seq_len(self):
        return 1000 // self.slots

    def with_cache(self, batch_size):
        return Plan(batch_size)


def encoder(errors=(), **settings):
    checkpoint = SimpleNamespace(
        tokenizer=Letters(dict(errors)), chat_template=None, config=SimpleNamespace(context_length=5000)
    )
    return RowEncoder(checkpoint, Settings().override(settings, "a test"), Plan())


def a_row(number, prompt, **settings):
    return BatchRow(number, number, f"int:{number}", RowForm.NATIVE, prompt, settings, {})


@pytest.mark.parametrize("kind", [CheckpointError, UsageError, MessagesRefusedError])
def test_what_one_text_cannot_be_encoded_for_is_the_failure_of_its_row(kind):
    rows = encoder({"bad": kind("the text needs token 999", "take another")})
    error = rows.encode(a_row(1, "bad"))
    assert (error.code, error.reason, error.hint) == (
        RowErrorCode.INVALID_REQUEST,
        "the text needs token 999",
        "take another",
    )
    assert rows.encode(a_row(2, "good")).ids == [*b"good"]


def test_the_longest_row_is_known_whether_it_fits_or_not():
    rows = encoder()
    assert rows.longest is None
    for number, (letters, settings) in enumerate(
        [(10, {}), (150, {}), (20, {"max_tokens": 500}), (30, {})], 1
    ):
        rows.encode(a_row(number, "x" * letters, **settings))
    assert (rows.longest.number, rows.longest.prompt_tokens, rows.longest.max_tokens) == (3, 20, 500)
    assert rows.capacity_for(rows.longest) == 519


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({}, "raise max_seq_len under [cache] (--max-seq-len 1000), or shorten the prompt"),
        ({"batch_size": 4}, "raise max_seq_len under [cache] (--max-seq-len 250), or shorten the prompt"),
        ({"max_tokens": 51}, "raise max_seq_len under [cache] (--max-seq-len 200), or shorten the prompt"),
        ({"max_tokens": 2000}, "shorten the prompt, or use another model"),
    ],
)
def test_what_would_hold_a_row_is_what_the_machine_has_room_for(settings, hint):
    error = encoder(**settings).encode(a_row(1, "x" * 150))
    assert (error.code, error.hint) == (RowErrorCode.DOES_NOT_FIT, hint)
