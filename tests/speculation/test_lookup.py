"""Lookups: what is guessed is what followed before, in memory that is allocated once."""

import random

import pytest

from metal_gen.speculation.lookup import LONG, RESUMED, SHORT, Lookup, PlannedLookup

EIGHT = list(range(10, 18))


def guesses_of(text, count=6, capacity=500, kinds=(LONG, SHORT)):
    source = Lookup(capacity)
    source.begin(text, 0)
    found = source.guess(lambda kind: count if kind in kinds else 0, None)
    return None if found is None else (found.kind, found.tokens)


def test_what_followed_the_same_tokens_is_guessed():
    assert guesses_of([*EIGHT, 1, 2, 3, 4, 5, 6, 7, *EIGHT]) == (LONG, [1, 2, 3, 4, 5, 6])
    assert guesses_of([*EIGHT, 1, 2, 3, 4, 5, 6, 7, *EIGHT[4:]]) == (SHORT, [1, 2, 3, 4, 5, 6])
    assert guesses_of([*EIGHT, 1, 2, 3, 4, 5, 6, 7, *EIGHT[5:]]) is None
    assert guesses_of([]) is None
    assert guesses_of(EIGHT) is None


def test_the_last_occurrence_counts_and_the_longer_key():
    four = EIGHT[4:]
    assert guesses_of([*four, 1, 1, 9, *four, 2, 2, 9, *four], 3) == (SHORT, [2, 2, 9])
    assert guesses_of([*EIGHT, 1, 1, 9, *four, 2, 2, 9, *EIGHT], 3) == (LONG, [1, 1, 9])


def test_a_text_that_repeats_its_end_goes_on_from_the_beginning_of_that():
    assert guesses_of([7, 8, 9] * 4, 7) == (LONG, [7, 8, 9, 7, 8, 9, 7])
    assert guesses_of([5] * 9, 4) == (LONG, [5, 5, 5, 5])


def test_a_run_goes_on_where_it_is():
    first, second = [*EIGHT, 1, 2, 3, 4], [*EIGHT, 1, 2, 7, 7]
    source = Lookup(500)
    source.begin([*first, 50, *second, 51, *EIGHT], 0)
    room = lambda kind: 4  # noqa: E731
    # The later occurrence is guessed; after a difference from it the earlier one may be meant.
    assert source.guess(room, None).tokens == [1, 2, 7, 7]
    source.accepted([1, 2, 7], None)
    assert source.guess(room, None).tokens[0] == 7


@pytest.mark.parametrize("seed", range(3))
def test_guesses_are_those_of_a_search(seed):
    chance = random.Random(seed)
    source, text = Lookup(400), [chance.randrange(3) for _ in range(30)]
    source.begin(text, 0)
    for _ in range(300):
        found = source.guess(lambda kind: 1, None)
        places = [
            (length, end)
            for length in (8, 4)
            for end in range(length, len(text))
            if text[end - length : end] == text[len(text) - length :]
        ]
        if found is not None and found.kind != RESUMED:
            length = 8 if found.kind == LONG else 4
            assert found.tokens[0] in {text[end] for each, end in places if each == length}
        text.append(chance.randrange(3))
        source.accepted([text[-1]], None)


def test_a_full_cache_and_much_that_is_taken_back():
    source, text = Lookup(200), [place % 11 for place in range(201)]
    source.begin(text[:50], 0)
    source.accepted(text[50:], None)
    source.take_back(150)
    fresh = Lookup(200)
    fresh.begin(text[:51], 0)
    room = lambda kind: 9  # noqa: E731
    assert source.guess(room, None) == fresh.guess(room, None)


def test_any_number_of_tokens_is_taken_back_or_none():
    chance = random.Random(9)
    source, text, room = Lookup(400), [place % 7 for place in range(20)], lambda kind: 9
    source.begin(text, 0)
    for _ in range(60):
        added = [chance.randrange(3) for _ in range(chance.choice([1, 3, 50]))][: 390 - len(text)]
        source.accepted(added, None)
        text += added
        with pytest.raises(ValueError, match="cannot take back"):
            source.take_back(len(text) - 19)
        count = chance.randint(0, len(text) - 20)
        source.take_back(count)
        del text[len(text) - count :]
        fresh = Lookup(400)
        fresh.begin(text[:20], 0)
        fresh.accepted(text[20:], None)
        assert source.guess(room, None) == fresh.guess(room, None)
        assert (source._found, source._long) == (fresh._found, fresh._long)


@pytest.mark.parametrize("capacity", [1, 2, 100, 1023, 1024, 1025])
def test_its_memory_is_within_the_plan(capacity):
    source = Lookup(capacity)
    tables = sum(len(table._slots) for table in source._tables)
    assert 4 * (tables + len(source._text)) <= PlannedLookup(None).memory.nbytes(capacity) + 4 * 9


def passes_over(prompt, answer, kinds=(LONG, SHORT, RESUMED), count=8):
    """Return how many passes an answer takes whose tokens are known."""
    source, done, passes = Lookup(2000), 0, 0
    source.begin(prompt, 0)
    while done < len(answer):
        found = source.guess(lambda kind: count if kind in kinds else 0, None)
        right = 0
        for guess in [] if found is None else found.tokens:
            if done + right + 1 >= len(answer) or answer[done + right] != guess:
                break
            right += 1
        source.accepted(answer[done : done + right + 1], None)
        done += right + 1
        passes += 1
    return passes


@pytest.mark.parametrize(
    "edit",
    [lambda token: [900], lambda token: [], lambda token: [token, 900], lambda token: [900, 901]],
    ids=["replaced", "removed", "added", "replaced by two"],
)
def test_a_repetition_goes_on_after_an_edit(edit):
    prompt = list(range(100, 300))
    answer = [new for token in prompt for new in (edit(token) if token % 11 == 0 else [token])]
    with_all, without = passes_over(prompt, answer), passes_over(prompt, answer, kinds=(LONG, SHORT))
    assert with_all < 0.75 * without
    assert len(answer) / with_all > 2.5


def kind_after(prompt, answer):
    """Return what the next guess comes from, once the tokens of an answer have come one by one."""
    source = Lookup(500)
    source.begin(prompt, 0)
    for token in answer:
        source.accepted([token], None)
    found = source.guess(lambda kind: 1, None)
    return None if found is None else found.kind


@pytest.mark.parametrize("is_in_prompt", [True, False])
def test_only_a_long_repetition_is_resumed(is_in_prompt):
    text = list(range(100, 150))

    def kind(repeated, after):
        prompt, answer = ([*text, *repeated], after) if is_in_prompt else (text, [*repeated, *after])
        return kind_after(prompt, answer)

    assert kind(text[:4], []) == kind(text[:6], []) == SHORT
    assert kind(text[:4], [900, text[5]]) is None
    assert kind(text[:6], [900, text[7]]) is None
    assert kind(text[:8], [900, text[9]]) == RESUMED
    assert kind(text[:20], [900, 901, text[21]]) == RESUMED


def test_a_resumption_is_tried_once():
    text = list(range(100, 150))
    broken = [*text[:20], 900, text[21]]
    assert kind_after(text, [*broken, 901, text[23]]) is None
    assert kind_after(text, [*broken, text[22], 901, text[24]]) == RESUMED
    # Four tokens after the break are a repetition of their own, and yet the long one.
    assert kind_after(text, [*broken, *text[22:26]]) == SHORT
    assert kind_after(text, [*broken, *text[22:26], 901, text[27]]) == RESUMED
