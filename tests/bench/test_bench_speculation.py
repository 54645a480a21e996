"""The section of speculation: the same texts without and with guesses, in turns."""

import pytest

import metal_gen
from metal_gen.bench.measurement import Unit
from metal_gen.bench.sections import speculation

pytest_plugins = ("fixtures_text",)


def test_each_kind_of_text_is_generated_without_and_with_guesses(gambler, monkeypatch):
    monkeypatch.setattr(speculation, "NEW_TOKENS", 12)
    model = metal_gen.load(gambler, max_seq_len=512, speculate="lookup", temperature=0.3)
    trials = speculation.speculation_trials(model, model.speculation)
    named = [figure.name for trial in trials for figure in trial.measurements]
    assert "story_gain" in named
    assert "thinking_tokens_per_pass" in named
    values = dict(zip(named, [value for trial in trials for value in trial.run()], strict=True))
    assert values["story_gain"] == pytest.approx(values["story_tps"] / values["story_off_tps"])
    assert values["story_tokens_per_pass"] >= 1
    assert all(figure.unit.more_is_better for figure in trials[0].measurements)
    assert {figure.unit for figure in trials[0].measurements} == {
        Unit.TOKENS_PER_SECOND,
        Unit.RATIO,
        Unit.TOKENS_PER_PASS,
    }


def test_a_text_that_does_not_fit_is_left_out(gambler):
    model = metal_gen.load(gambler, max_seq_len=260, speculate="lookup")
    names = [trial.measurements[0].name for trial in speculation.speculation_trials(model, model.speculation)]
    assert "story_off_tps" in names
    assert "copy_off_tps" not in names
