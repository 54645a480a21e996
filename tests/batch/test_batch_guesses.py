"""A batch with one slot makes guesses, and the same texts; with more slots it says that it makes none."""

import pytest

import metal_gen
from metal_gen.batch.input.rows import BatchRow, RowError, RowForm
from metal_gen.batch.slot_rows import slot_rows
from metal_gen.config.settings import Settings
from metal_gen.generation.loading import prepare

pytest_plugins = ("fixtures_text",)

ROWS = [
    {},
    {"samples": 2, "temperature": 0.5},
    {"temperature": 0.7, "stop": ("a",)},
    {"regex": "(ab|ac)*d", "temperature": 1.0},
    {"logprobs": 1},
    {"max_tokens": None},
]


def records(model):
    """Run rows one after another, as a batch does."""
    found = {}
    with slot_rows(model) as rows:
        waiting = [
            BatchRow(number, number, f"int:{number}", RowForm.NATIVE, "ab ab ab " * number,
                     {"max_tokens": 25, **settings}, {})
            for number, settings in enumerate(ROWS, 1)
        ]  # fmt: skip
        while waiting or not rows.is_idle:
            while waiting and rows.has_room:
                assert rows.begin(waiting.pop(0), 7) is None
            found |= dict(rows.advance())
        assert rows.slots_in_use == 0
        assert 0 < rows.occupancy <= 1
    return found


def record_of(outcome):
    return dict(outcome.given if isinstance(outcome, RowError) else outcome.record)


def test_rows_have_the_texts_of_those_without_guesses(gambler):
    plain, guessed = (metal_gen.load(gambler, max_seq_len=120, speculate=each) for each in ("off", "lookup"))
    expected, found = records(plain), records(guessed)
    assert found.keys() == set(range(1, len(ROWS) + 1))
    for number, outcome in expected.items():
        one, other = record_of(outcome), record_of(found[number])
        assert one.pop("logprobs", None) is None or other.pop("logprobs")
        for text in other.get("texts", [other]):
            counts = text.pop("speculation")
            assert counts["source"] == "lookup"
            assert 0 <= counts["accepted"] <= counts["drafted"]
            assert counts["passes"] * counts["tokens_per_pass"] == pytest.approx(text["completion_tokens"])
        assert one == other


@pytest.mark.parametrize("speculate", ["off", "lookup"])
def test_a_full_cache_is_named_as_the_reason(gambler, speculate):
    row = BatchRow(1, 1, "int:1", RowForm.NATIVE, "ab", {"regex": "a{500}"}, {})
    outcomes = {}
    with slot_rows(metal_gen.load(gambler, max_seq_len=32, max_tokens=None, speculate=speculate)) as rows:
        assert rows.begin(row, 7) is None
        while not rows.is_idle:
            outcomes |= dict(rows.advance())
    assert "cache_full" in outcomes[1].reason
    assert "--max-seq-len" in outcomes[1].hint


@pytest.mark.parametrize(
    ("settings", "most_slots", "reason"),
    [
        ({"speculate": "lookup"}, 4, "texts at once share each pass"),
        ({"speculate": "lookup", "batch_size": 2}, 1, "texts at once share each pass"),
        ({"speculate": "lookup", "batch_size": 1}, 4, "may round the last bits in another way"),
        ({"speculate": "auto"}, 4, None),
        ({"speculate": "off", "batch_size": 3}, 4, None),
    ],
    ids=str,
)
def test_it_is_said_when_no_guesses_are_made(gambler, settings, most_slots, reason):
    prepared = prepare(Settings(model=gambler, **settings), most_slots=most_slots)
    said = [notice for notice in prepared.notices if "guessed" in notice]
    assert prepared.guesses is None
    assert len(said) == (reason is not None)
    assert all(reason in notice for notice in said)
