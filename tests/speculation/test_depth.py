"""The choice of depths: the fastest is found, be it none, and little is lost on the way."""

import json

import pytest
from simulated_passes import KIND, expected_speed, settled, simulate

from metal_gen.speculation.depth import USUAL, Depths, LearnedDepths
from metal_gen.speculation.learned import FEWEST_PASSES, KeptDepths


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("each", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["mtp", "lookup 8"])
def test_the_best_depth_is_found(share, each, kind):
    depths = LearnedDepths(32)
    simulate(depths, share, each, 600, kind)
    seconds, tokens, _ = simulate(depths, share, each, 600, kind, seed=2)
    best = max(expected_speed(depth, share, each) for depth in range(USUAL[kind] + 1))
    assert tokens / seconds > 0.9 * best


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("kind", ["mtp", "draft", "lookup 4"])
def test_guesses_that_do_not_pay_cost_little(share, kind):
    depths = LearnedDepths(32)
    seconds, tokens, used = simulate(depths, share, 0.6, 1000, kind)
    assert tokens / seconds > 0.97
    assert used[-200:].count(0) > 190


def test_what_changes_is_noticed():
    depths = LearnedDepths(32)
    simulate(depths, 0.0, 0.02, 800)
    _, _, used = simulate(depths, 1.0, 0.02, 2000)
    assert used[-1] > 16
    _, _, used = simulate(depths, 0.0, 0.6, 800)
    assert used[-50:].count(0) > 45


def test_times_that_do_not_count_are_left_out():
    depths = LearnedDepths(32)
    for _ in range(9):
        depths.note("", 0, 0, None)
    assert depths.choose(KIND) == 0
    for seconds in (9.0, 9.0, 0.001, 0.001, 0.001, 5.0):
        depths.note("", 0, 0, seconds)
    assert depths.plain.value < 0.002
    assert settled(depths) > 0


@pytest.mark.parametrize("made", [Depths, LearnedDepths])
def test_no_depth_is_above_what_is_wanted(made):
    for most, wanted, kind, expected in ((64, 2, KIND, 2), (3, None, KIND, 3), (64, None, "mtp", 4)):
        depths = made(most, wanted)
        for _ in range(200):
            count = depths.choose(kind)
            assert count <= expected
            depths.note(kind if count else "", count, count, 0.001)
        assert count == expected


# What is kept for the next run


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "metal-gen" / "speculation.json"


def test_the_next_run_begins_with_what_was_learned(path):
    first = KeptDepths("a", 32)
    simulate(first, 1.0, 0.01, FEWEST_PASSES + 30)
    first.end_text()
    assert path.stat().st_mode & 0o777 == 0o600
    again = KeptDepths("a", 32)
    assert settled(again) == 32
    assert again.plain.value == pytest.approx(first.plain.value, rel=1e-3)
    assert settled(KeptDepths("b", 32)) == 0
    other = KeptDepths("b", 32)
    simulate(other, 0.0, 0.5, FEWEST_PASSES + 30)
    other.end_text()
    assert settled(KeptDepths("a", 32)) == 32


def test_a_short_run_writes_nothing(path):
    depths = KeptDepths("a", 32)
    simulate(depths, 1.0, 0.01, FEWEST_PASSES - 1)
    depths.end_text()
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[" * 9999,
        b"[]",
        b"{}",
        b'{"format": 1, "models": []}',
        b'{"format": 1, "models": {"a": 3}}',
        b'{"format": 9, "models": {}}',
        json.dumps({"format": 1, "models": {"a": {"plain": [0, 3], "kinds": {}}}}).encode(),
        json.dumps({"format": 1, "models": {"a": {"plain": ["x", 3], "kinds": {}}}}).encode(),
        json.dumps({"format": 1, "models": {"a": {"plain": [1e999, 3], "kinds": {}}}}).encode(),
        json.dumps({"format": 1, "models": {"a": {"plain": [10**400, 3], "kinds": {}}}}).encode(),
        json.dumps(
            {"format": 1, "models": {"a": {"plain": [0.1, 3], "kinds": {KIND: {"costs": {"x": [1, 1]}}}}}}
        ).encode(),
        json.dumps(
            {"format": 1, "models": {"a": {"plain": [0.1, 3], "kinds": {KIND: {"costs": [], "right": 3}}}}}
        ).encode(),
    ],
)
def test_whatever_is_wrong_with_the_file_is_ignored(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)
    depths = KeptDepths("a", 32)
    assert settled(depths) == 0
    simulate(depths, 1.0, 0.01, FEWEST_PASSES + 30)
    depths.end_text()
    assert settled(KeptDepths("a", 32)) == 32


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    depths = KeptDepths("a", 32)
    simulate(depths, 1.0, 0.01, FEWEST_PASSES + 30)
    depths.end_text()
    assert (tmp_path / "file").read_text() == ""


def test_a_choice_that_was_made_ahead_is_kept():
    depths, other = LearnedDepths(8), LearnedDepths(8)
    for each in (depths, other):
        for _ in range(6):
            each.note("", 0, 0, 0.01)
    found = []
    for turn in range(200):
        if turn % 3:
            assert depths.wants("mtp") == depths.wants("mtp")
        found.append(depths.choose("mtp"))
    assert found == [other.choose("mtp") for _ in range(200)]


def test_a_choice_of_none_that_was_made_ahead_is_kept_once():
    depths = LearnedDepths(4)
    assert depths.choose_ahead("mtp") == 0
    for _ in range(10):
        depths.note("", 0, 0, 1.0)
    assert depths.choose("mtp") == 0
    assert depths.choose("mtp") > 0
    assert depths.choose_ahead("mtp") == depths.choose("mtp") > 0


def test_kinds_of_a_source_share_what_passes_cost():
    depths = LearnedDepths(32)
    for _ in range(4):
        depths.note("", 0, 0, 0.01)
        depths.note("lookup 8", 8, 8, 0.05)
    depths.choose("lookup 4")
    assert depths.kinds["lookup 4"].costs[8].value == pytest.approx(0.05)
    # Passes of another size are expected to cost about as much.
    assert settled(depths, "lookup resumed") == 0
    assert depths.choose("mtp") > 0
