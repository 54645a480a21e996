"""Which settings of guesses give way to others."""

import pytest

from metal_gen.config.settings import Settings
from metal_gen.config.sources import override_with_flags

FILE = "config.toml"
PLACES = {"speculate": "--speculate", "draft_model": "--draft-model"}


@pytest.mark.parametrize(
    ("kept", "flags", "expected"),
    [
        ({"draft_model": "x"}, {"speculate": "off"}, ("off", None)),
        ({"draft_model": "x"}, {"speculate": "lookup"}, ("lookup", None)),
        ({"draft_model": "x"}, {"speculate": "draft"}, ("draft", "x")),
        ({"draft_model": "x", "speculate": "draft"}, {"speculate": "auto"}, ("auto", "x")),
        ({"draft_model": "x"}, {"draft_tokens": "3"}, ("auto", "x")),
        ({"speculate": "lookup"}, {"draft_model": "x"}, ("auto", "x")),
        ({"speculate": "off"}, {"draft_model": "x", "speculate": "draft"}, ("draft", "x")),
        ({"speculate": "draft"}, {"draft_model": "x"}, ("draft", "x")),
        ({"speculate": "mtp"}, {"draft_tokens": "3"}, ("mtp", None)),
    ],
)
def test_a_nearer_choice_replaces_one_that_contradicts_it(kept, flags, expected):
    settings = override_with_flags(Settings().override(kept, FILE), flags)
    assert (settings.speculate, settings.draft_model) == expected
    for name, value in zip(("speculate", "draft_model"), expected, strict=True):
        place = PLACES[name] if name in flags else FILE
        assert settings.source(name) == (place if value not in (None, "auto") or name in flags else "default")


def test_guesses_that_are_turned_off_have_no_number_from_further_away():
    kept = Settings().override({"draft_tokens": 3}, FILE)
    assert override_with_flags(kept, {"speculate": "off"}).draft_tokens is None
    assert override_with_flags(kept, {"speculate": "lookup"}).draft_tokens == 3
    assert override_with_flags(kept, {"speculate": "off", "draft_tokens": "4"}).draft_tokens == 4


def test_what_contradicts_itself_in_one_place_stays_for_the_refusal():
    for before in (Settings(), Settings().override({"speculate": "mtp"}, FILE)):
        settings = override_with_flags(before, {"speculate": "off", "draft_model": "x"})
        assert (settings.speculate, settings.draft_model) == ("off", "x")
    settings = Settings().override({"speculate": "lookup", "draft_model": "x"}, FILE)
    assert (settings.speculate, settings.draft_model) == ("lookup", "x")
