"""Tests that other programs' values for "off" are accepted here too, wherever a setting is written."""

import json

import pytest

from metal_gen.batch.input.row_settings import row_settings
from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.settings_file import shown_value
from metal_gen.config.sources import override_with_arguments, override_with_flags, resolve_settings
from metal_gen.config.switched import Switched
from metal_gen.errors import ConfigError, UsageError
from metal_gen.sampling.strategy import SamplingStrategy, TopK

FORMS = [("top_k", 0), ("top_k", -1), ("max_tokens", -1), ("seed", -1), ("repetition_window", -1)]


def set_in_each_place(tmp_path, name, value):
    """Return the settings from a value in a file, a variable, a flag and an argument of the library."""
    info, file = SETTINGS[name], tmp_path / "job.toml"
    file.write_text(f"[{info.section}]\n{info.key} = {json.dumps(value)}\n")
    below = Settings().override({name: 7}, "something else")
    variables = resolve_settings(environ={info.variable: str(value)})
    return {
        "file": resolve_settings(config_file=file),
        "variable": variables,
        "flag": override_with_flags(below, {name: str(value)}),
        "argument": override_with_arguments(below, {name: value}),
    }


def test_there_is_a_form_for_every_setting_that_can_be_switched_off():
    switched = {name for name, info in SETTINGS.items() if isinstance(info.check, Switched)}
    assert {name for name, _ in FORMS} == switched


@pytest.mark.parametrize(("name", "value"), FORMS)
def test_a_number_switches_a_setting_off_in_every_place(tmp_path, name, value):
    for place, settings in set_in_each_place(tmp_path, name, value).items():
        assert getattr(settings, name) is None, place
        assert name in settings.sources, place
        assert settings.fill({name: 5}, "the checkpoint") == settings, place
        assert shown_value(settings, name) == str(SETTINGS[name].check.off[0]), place


@pytest.mark.parametrize(("name", "value"), FORMS)
def test_what_is_shown_can_be_written_into_a_file(tmp_path, name, value):
    settings = set_in_each_place(tmp_path, name, value)["flag"]
    again = tmp_path / "again.toml"
    again.write_text(f"[{SETTINGS[name].section}]\n{SETTINGS[name].key} = {shown_value(settings, name)}\n")
    assert getattr(resolve_settings(config_file=again), name) is None


def test_a_row_switches_off_what_the_run_has_set():
    rows = row_settings({"top_k": 0, "max_tokens": -1, "seed": -1})
    run = Settings().override({"top_k": 20, "max_tokens": 9, "seed": 4}, "--flags")
    settings = override_with_arguments(run, rows)
    assert (settings.top_k, settings.max_tokens) == (None, None)
    assert settings.seed == 4


def test_a_strategy_takes_the_same_numbers():
    assert TopK(0) == TopK(-1) == SamplingStrategy()
    assert SamplingStrategy(repetition_window=-1).repetition_window is None


def test_other_filters_are_switched_off_by_the_number_that_keeps_all(tmp_path):
    for name, value in (("top_p", 1), ("min_p", 0), ("repetition_penalty", 1)):
        for place, settings in set_in_each_place(tmp_path, name, value).items():
            strategy = SamplingStrategy(**{name: getattr(settings, name)})
            assert not strategy.truncates_by_mass, place
            assert not strategy.has_penalties, place
            assert getattr(strategy, name) == value, place


@pytest.mark.parametrize(
    ("name", "value"), [("top_k", -2), ("max_tokens", 0), ("seed", -2), ("top_k", False)]
)
def test_other_numbers_are_refused_with_the_one_that_would_do(tmp_path, name, value):
    words = f"or {SETTINGS[name].check.off[0]} for"
    with pytest.raises(UsageError, match=words):
        override_with_arguments(Settings(), {name: value})
    with pytest.raises(UsageError, match=words):
        override_with_flags(Settings(), {name: str(value)})
    with pytest.raises(ConfigError, match=words):
        resolve_settings(environ={SETTINGS[name].variable: str(value)})


SIZES = [
    ("1", 1),
    ("4096B", 4096),
    ("12G", 12 * 2**30),
    ("12GiB", 12 * 2**30),
    ("12 gib", 12 * 2**30),
    ("1GB", 10**9),
    ("512MiB", 512 * 2**20),
    ("1.5k", 1536),
    ("0.5TB", 5 * 10**11),
    ("9007199254740993", 2**53 + 1),
]


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_sizes_have_units_in_every_place(tmp_path, text, size):
    for place, settings in set_in_each_place(tmp_path, "memory_limit_bytes", text).items():
        assert settings.memory_limit_bytes == size, place


@pytest.mark.parametrize(
    "text", ["0", "0.0001", "-1", "12X", "G", "1e9", "1.2.3", "1iB", "9" * 400, "9" * 20 + "T", ""]
)
def test_an_invalid_size_is_refused(text):
    with pytest.raises(UsageError, match="a size such as 12G"):
        override_with_flags(Settings(), {"memory_limit_bytes": text})
    with pytest.raises(UsageError, match="a size such as 12G"):
        override_with_arguments(Settings(), {"memory_limit_bytes": text})
