"""Depths where the first pass of each has to compile a function: none is made in vain."""

import json

import pytest
from simulated_passes import KIND, settled, simulate

from metal_gen.speculation.depth import (
    COMPILE_COST,
    FEWEST_FOUND,
    PASSES_BETWEEN_COMPILED,
    USUAL,
    Depths,
    LearnedDepths,
)
from metal_gen.speculation.learned import KeptDepths

PLAIN_S = 0.0045
LONG_TEXT = 2 * PASSES_BETWEEN_COMPILED


def depths_after_steps(most=32, wanted=None, made=LearnedDepths):
    depths = made(most, wanted)
    for _ in range(5):
        depths.note("", 0, 0, PLAIN_S)
    return depths


def passes_at(depths, kind, depth, accepted, *, seconds=2 * PLAIN_S, count=4):
    for number in range(count):
        depths.note(kind, depth, accepted, seconds if number else None)


def test_nothing_is_compiled_for_a_lookup_that_finds_guesses_for_a_few_tokens():
    depths = depths_after_steps()
    assert [depths.wants(KIND) for _ in range(FEWEST_FOUND)] == [False] * (FEWEST_FOUND - 1) + [True]
    # Another text begins anew; once a pass is compiled, guesses are made at once.
    depths = depths_after_steps()
    assert not any(depths.wants(KIND) for _ in range(FEWEST_FOUND - 1))
    depths.end_text()
    assert not depths.wants(KIND)
    passes_at(depths, KIND, 8, 8)
    depths.end_text()
    assert depths.wants(KIND)


def test_a_choice_that_was_made_ahead_does_not_outlive_its_text():
    depths = depths_after_steps()
    assert [depths.wants(KIND) for _ in range(FEWEST_FOUND)][-1]
    depths.end_text()
    assert not depths.wants(KIND)
    # A model guesses at once, but not as many as a choice for another text says.
    assert depths.choose_ahead("mtp") == 4
    depths.end_text()
    passes_at(depths, "mtp", 4, 0, count=40, seconds=9 * PLAIN_S)
    assert depths.choose("mtp") == 0


def test_nothing_is_compiled_for_guesses_that_may_be_wrong():
    depths = depths_after_steps()
    assert not any(depths.wants("lookup 4") for _ in range(20))
    passes_at(depths, KIND, 8, 8, seconds=1.2 * PLAIN_S)
    assert settled(depths, "lookup 4") == 8


def test_models_guess_at_once():
    assert depths_after_steps().choose("mtp") == 4


def compiled_in(depths, steps, kind="lookup 4", share=0.5):
    """Return at which passes something was compiled, where rows take no time and a first pass much."""
    used, found, right = {0}, [], 0.0
    for number in range(steps):
        depth, accepted = depths.choose(kind), 0
        if depth:
            right += share
            accepted = depth if right >= 1 else 0
            right -= right >= 1
        is_new = depth not in used
        found += [number] * is_new
        used.add(depth)
        depths.note(kind if depth else "", depth, accepted, None if is_new else PLAIN_S * (1 + (depth > 0)))
    return found


def test_a_depth_is_compiled_to_be_tried_only_in_a_long_text():
    depths = depths_after_steps()
    for _ in range(3):
        assert compiled_in(depths, LONG_TEXT - 10) == []
        depths.end_text()
    found = compiled_in(depths, 2 * LONG_TEXT)
    assert 0 < len(found) < 3
    assert found[0] >= LONG_TEXT
    assert len(found) * COMPILE_COST < 0.02 * 2 * LONG_TEXT


def test_a_model_whose_guesses_were_wrong_tries_other_depths_in_short_texts_too():
    depths, found = depths_after_steps(), []
    for _ in range(6):
        found += compiled_in(depths, PASSES_BETWEEN_COMPILED // 2, "mtp", share=0.3)
        depths.end_text()
    assert len(found) > 1


def test_a_try_goes_on_until_its_time_is_known():
    depths = depths_after_steps()
    compiled_in(depths, LONG_TEXT + 60)
    assert depths.kinds["lookup 4"].costs


def test_a_depth_that_cannot_be_better_is_not_tried():
    depths = depths_after_steps()
    passes_at(depths, KIND, 32, 32, count=9)
    for _ in range(2 * PASSES_BETWEEN_COMPILED):
        assert depths.choose(KIND) in (0, 32)
        depths.note(KIND, 32, 32, 2 * PLAIN_S)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, [0, 3, 8, 32]), (1, [0, 1]), (2, [0, 2]), (3, [0, 3]), (5, [0, 5]), (8, [0, 3, 8]),
        (10, [0, 3, 10]), (16, [0, 3, 8, 16]), (64, [0, 3, 8, 32, 64]),
    ],
)  # fmt: skip
def test_lookups_have_few_depths_and_all_that_are_wanted(wanted, expected):
    depths = LearnedDepths(wanted or 32, wanted)
    assert depths._depths(KIND) == expected
    assert depths._depths("lookup 4")[-1] == (wanted or USUAL["lookup 4"])


def test_models_have_all_small_depths():
    assert [LearnedDepths(most, most)._depths("mtp") for most in (1, 3, 4, 5, 20)] == [
        [0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 8, 16, 20],
    ]  # fmt: skip


def test_passes_with_fewer_guesses_are_filled_up_to_a_function_that_is_there():
    depths = depths_after_steps()
    passes_at(depths, KIND, 8, 8, count=1)
    assert settled(depths) == 32
    # Those that were chosen stay as many: they may be tried. Fewer take what there is.
    assert [depths.filled(KIND, count) for count in (1, 8, 9, 32)] == [8, 8, 32, 32]
    assert depths.cut(KIND, 32, 5) == 5
    assert Depths(8).filled(KIND, 3) == 3
    assert Depths(8).cut(KIND, 8, 3) == 3


def test_at_the_end_of_a_text_models_keep_to_functions_that_are_there():
    depths = depths_after_steps()
    assert depths.cut("mtp", 4, 9) == 4
    assert depths.cut("mtp", 4, 3) == 0
    passes_at(depths, "mtp", 2, 2, count=1)
    assert [depths.cut("mtp", 4, room) for room in (4, 3, 2, 1)] == [4, 2, 2, 0]


def test_a_pass_that_was_filled_up_tells_the_cost_of_its_depth():
    depths = depths_after_steps()
    for _ in range(4):
        depths.note(KIND, 2, 1, 3 * PLAIN_S, 8)
    known = depths.kinds[KIND]
    assert list(known.costs) == [8]
    assert len(known.right) == 2


def test_what_earlier_versions_have_learned_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "metal-gen" / "speculation.json"
    path.parent.mkdir()
    costs = {"1": [0.004, 9.0], "2": [0.0041, 30.0], "16": [0.006, 3.0]}
    kinds = {KIND: {"costs": costs, "right": [[0.9, 24.0], [0.95, 24.0]]}}
    models = {"a": {"plain": [PLAIN_S, 24.0], "kinds": kinds}}
    path.write_text(json.dumps({"format": 2, "models": models}))
    path.chmod(0o600)
    depths = KeptDepths("a", 32)
    assert depths.plain.value == PLAIN_S
    assert settled(depths) in (8, 32)
    simulate(depths, 0.9, 0.01, 200)
    depths.end_text()
    assert json.loads(path.read_text())["models"]["a"]["kinds"][KIND]["costs"]["2"][0] == 0.0041
