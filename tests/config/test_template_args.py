"""Tests variables for a chat template: names with JSON values."""

import pytest

from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.settings_file import shown_value
from metal_gen.config.sources import override_with_arguments, override_with_flags, read_toml
from metal_gen.errors import ConfigError, UsageError

CHECK = SETTINGS["template_arg"].check


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["enable_thinking=false"], {"enable_thinking": False}),
        (["a=1", "b=[1, {}]", "c=null"], {"a": 1, "b": [1, {}], "c": None}),
        (["date=1 May", "x==", "y="], {"date": "1 May", "x": "=", "y": ""}),
        (['a="5"', "a=NaN"], {"a": "NaN"}),
        (['{"a": 1, "b": "x=y"}', "a=2"], {"a": 2, "b": "x=y"}),
    ],
)
def test_a_value_is_json_or_else_a_text(texts, values):
    assert dict(CHECK.from_texts(texts)) == values


def test_a_variable_of_the_environment_is_an_object_or_one_pair():
    assert dict(CHECK.from_text('{"a": [1], "b": "c"}')) == {"a": [1], "b": "c"}
    assert dict(CHECK.from_text("a=[1]")) == {"a": [1]}


@pytest.mark.parametrize("text", ["a", "=1", "a b=1", "messages=[]", "add_generation_prompt=false", "1a=2"])
def test_what_names_no_variable_is_refused(text):
    with pytest.raises(UsageError, match="--template-arg"):
        override_with_flags(Settings(), {"template_arg": [text]})


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [{"a": float("nan")}, {"a": {1: 2}}, {"a": "\ud800"}, {"a": 2**70}, {"a": {3}}, {1: 2}, 5, deep(200)],
)
def test_what_json_cannot_hold_is_refused(value):
    given = {"a": value} if isinstance(value, list) else value
    with pytest.raises(UsageError, match="template_arg"):
        override_with_arguments(Settings(), {"template_arg": given})


def test_a_file_has_a_table_of_them_and_shows_it_again(tmp_path):
    text = '{ "a" = [1, { "b" = true }], "c" = "d" }'
    (tmp_path / "a.toml").write_text(f"[generation]\ntemplate_arg = {text}\n")
    settings = Settings().override(read_toml(tmp_path / "a.toml"), "file")
    assert dict(settings.template_arg) == {"a": [1, {"b": True}], "c": "d"}
    assert shown_value(settings, "template_arg") == text


def test_a_date_in_a_file_is_refused(tmp_path):
    (tmp_path / "a.toml").write_text("[generation]\ntemplate_arg = { day = 2026-05-01 }\n")
    with pytest.raises(ConfigError, match="JSON"):
        read_toml(tmp_path / "a.toml")
