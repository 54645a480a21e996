"""Masks of several sequences, as Metal's kernel takes them without a copy, and of successive tokens."""

import mlx.core as mx
import pytest

from metal_gen.device_checks.check import run_check
from metal_gen.device_checks.models import model_checks
from metal_gen.models import masks
from metal_gen.models.attention import Part
from metal_gen.models.masks import seen_by, seen_in_turn

HEADS, PLACES, WINDOW = 4, 12, 3


def seen(positions, window):
    return seen_by(mx.array(positions), mx.arange(PLACES), window, HEADS)


@pytest.mark.parametrize("window", [None, WINDOW])
def test_each_head_has_the_same_mask(monkeypatch, window):
    monkeypatch.setattr(masks, "runs_on_metal", lambda: False)
    plain = seen([5, 0, 11], window)
    monkeypatch.setattr(masks, "runs_on_metal", lambda: True)
    repeated = seen([5, 0, 11], window)
    assert (repeated[1] is None) is (window is None)
    for mask, expected in zip(repeated, plain, strict=True):
        if mask is not None:
            assert mask.shape == (3, HEADS, 1, PLACES)
            assert mx.array_equal(mask, mx.broadcast_to(expected, mask.shape))


def test_one_sequence_needs_no_repetition(monkeypatch):
    monkeypatch.setattr(masks, "runs_on_metal", lambda: True)
    assert seen([5], None)[0].shape == (1, 1, 1, PLACES)


def test_slots_give_the_same_numbers_with_them(monkeypatch):
    monkeypatch.setattr(masks, "runs_on_metal", lambda: True)
    (check,) = (check for check in model_checks() if check.name == "qwen2, sliding window: slots")
    assert run_check(check).passed


@pytest.mark.parametrize(("start", "length"), [(0, 1), (0, 9), (5, 4), (12, 6), (20, 1)])
@pytest.mark.parametrize("window", [None, 6])
def test_successive_tokens_see_what_a_causal_part_shows_them(start, length, window):
    end = start + length
    seen, in_window = seen_in_turn(mx.arange(start, end), mx.arange(end + 3), window)
    part = Part.causal(start, length, window)
    whole = [[place <= token for place in range(end + 3)] for token in range(start, end)]
    assert seen.tolist() == whole
    assert part.mask == ("causal" if length > 1 else None)
    if window is None:
        assert in_window is None
        assert (part.sliding_mask, part.last_keys) == (part.mask, None)
    elif part.last_keys is None:
        # All keys up to the last token are given, and the mask decides.
        assert in_window[:, :end].tolist() == part.sliding_mask.tolist()
        assert not in_window[:, end:].any()
    else:
        # The last keys are given, and the part sees all of them that are not after a token.
        first = end - window
        shown = [[first <= place <= token for place in range(end + 3)] for token in range(start, end)]
        assert in_window.tolist() == shown
