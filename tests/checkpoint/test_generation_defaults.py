"""Tests that generation_config.json sets defaults, which settings override."""

import json

import pytest
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.checkpoint.generation_defaults import sampling_defaults
from metal_gen.checkpoint.gguf.sampling import generation_config
from metal_gen.config.settings import Settings
from metal_gen.errors import CheckpointError
from metal_gen.generation.loading import prepare

# Invalid values, and valid ones.
RANGES = {"temperature": (-1, 0.5), "top_k": (-2, 5), "top_p": (1.5, 0.9), "min_p": (2, 0.1)}


@pytest.mark.parametrize("name", RANGES)
def test_a_value_out_of_range_stops_a_run_unless_it_is_replaced(name, tmp_path):
    bad, good = RANGES[name]
    folder = str(write_text_checkpoint(tmp_path))
    (tmp_path / "generation_config.json").write_text(json.dumps({"do_sample": True, name: bad}))
    with pytest.raises(CheckpointError, match=f"generation_config.json: {name} must be") as caught:
        prepare(Settings(model=folder))
    assert caught.value.hint == f"replace it with --{name.replace('_', '-')}"
    replaced = Settings(model=folder).override({name: good}, "--option")
    assert getattr(prepare(replaced).settings, name) == good


@pytest.mark.parametrize(
    "idle", [{"top_k": 0}, {"top_k": -1}, {"top_p": 1.0}, {"min_p": 0}, {"repetition_penalty": 1}]
)
def test_values_without_effect_are_no_settings(idle):
    assert sampling_defaults({"do_sample": True, **idle}) == {"temperature": 1.0}


def test_drawing_needs_do_sample():
    given = {"temperature": 0.5, "top_k": 5, "repetition_penalty": 1.1}
    assert sampling_defaults(given) == {"repetition_penalty": 1.1}
    assert sampling_defaults({**given, "do_sample": True}) == given
    assert sampling_defaults({**given, "do_sample": True}, ["top_k", "temperature"]) == {
        "temperature": 1.0,
        "repetition_penalty": 1.1,
    }


def test_one_notice_names_invalid_values_that_are_left_out(tmp_path):
    folder = str(write_text_checkpoint(tmp_path))
    given = {"temperature": -4, "top_k": "a", "top_p": 0.9, "min_p": 0}
    (tmp_path / "generation_config.json").write_text(json.dumps(given))

    def said(**flags):
        settings = Settings(model=folder).override(flags, "--option")
        return [notice for notice in prepare(settings).notices if "generation_config" in notice]

    what = "generation_config.json has invalid sampling values, which are left out"
    assert said() == [f"{what}: temperature -4, top_k 'a'"]
    assert said(temperature=0.5) == [f"{what}: top_k 'a'"]
    assert said(temperature=0.5, top_k=5) == []


def test_a_gguf_file_says_how_it_is_sampled():
    sampling = {"temp": 0.6000000238418579, "top_k": 20, "top_p": 0.949999988079071, "penalty_repeat": 1.0}
    metadata = {f"general.sampling.{name}": value for name, value in sampling.items()}
    found = generation_config(metadata)
    assert sampling_defaults(found) == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert sampling_defaults(generation_config({})) == {}
    penalty = generation_config({"general.sampling.penalty_repeat": 1.100000023841858})
    assert sampling_defaults(penalty) == {"repetition_penalty": 1.1}


@pytest.mark.parametrize("value", ["hot", -1.0, float("nan"), [1], 10**9, True])
def test_a_gguf_file_that_cannot_be_sampled_so_is_refused(value):
    with pytest.raises(CheckpointError, match=r"general\.sampling: temperature") as caught:
        sampling_defaults(generation_config({"general.sampling.temp": value}), (), "general.sampling")
    assert "--temperature" in caught.value.hint
