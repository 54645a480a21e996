"""How constraints are written: schemas in three forms, files, and one kind after another."""

import json

import pytest

from metal_gen.config.constraints.checks import MOST_BYTES, Choices, Grammar, Schema, Source
from metal_gen.config.constraints.tools import Tools
from metal_gen.config.settings import Settings
from metal_gen.config.sources import override_with_flags, read_toml, resolve_settings
from metal_gen.errors import UsageError

OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}}


def short(**properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        (json.dumps(OBJECT), OBJECT),
        ("name", short(name={"type": "string"})),
        (
            "name string, age integer, big number, ok boolean",
            short(
                name={"type": "string"},
                age={"type": "integer"},
                big={"type": "number"},
                ok={"type": "boolean"},
            ),
        ),
        (
            "name, age int, big float, ok bool",
            short(
                name={"type": "string"},
                age={"type": "integer"},
                big={"type": "number"},
                ok={"type": "boolean"},
            ),
        ),
        (
            "name: first, last\n\n tags str : a few\n",
            short(
                name={"type": "string", "description": "first, last"},
                tags={"type": "string", "description": "a few"},
            ),
        ),
    ],
    ids=range(5),
)
def test_a_schema_as_json_and_in_short(text, schema):
    assert json.loads(Schema().from_text(text)) == schema
    assert json.loads(Schema()(text)) == schema
    assert json.loads(Schema()(schema)) == schema


def test_a_schema_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answer").write_text(json.dumps(OBJECT))
    assert json.loads(Schema().from_text("answer")) == OBJECT
    assert json.loads(Schema().from_text(str(tmp_path / "answer"))) == OBJECT
    # A program and a row mean the field, whatever files there are.
    assert json.loads(Schema()("answer")) == short(answer={"type": "string"})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is not JSON"),
        ('{"a": 1, "a": 2}', "occurs twice"),
        ("", "must be a JSON Schema"),
        ("[1, 2]", "must be a JSON Schema"),
        ('"name"', "must be a JSON Schema"),
        ("false", "must be a JSON Schema"),
        (",", "must not be empty"),
        ("name, age integer42", "has the field age of the unknown type integer42, not str, int, float, bool"),
        ("age a number", "has a field that is not NAME"),
        ("name, age: int", "has a type after a colon: write age int"),
        ("a, a", "names the field a twice"),
        ("none.json", "cannot be read: No such file"),
        ("/dev/zero", "names a device"),
        ("empty.json", "is empty"),
        ("/", "cannot be read: Is a directory"),
        (json.dumps({"description": "x" * MOST_BYTES}), "must have at most 256 KiB"),
    ],
    ids=range(16),
)
def test_a_schema_that_is_none(text, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.json").write_text("\n")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Schema().from_text(text)
    assert part in str(error.value)


@pytest.mark.parametrize("value", [5, [], False, None, {1: object()}, {"a": float("nan")}, "\ud800"])
def test_other_values_are_no_schema(value):
    with pytest.raises(ValueError, match="must"):
        Schema()(value)


def test_a_file_of_bytes_and_one_that_is_too_large(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff{}")
    with pytest.raises(ValueError, match="is not UTF-8"):
        Schema().from_text(str(path))
    path.write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(ValueError, match="at most 256 KiB"):
        Schema().from_text(str(path))


@pytest.mark.parametrize("check", [Schema(), Grammar(), Tools()], ids=lambda check: type(check).__name__)
@pytest.mark.parametrize("size", [1, 2 * MOST_BYTES])
def test_a_file_of_another_format_is_named_with_a_command(tmp_path, check, size):
    path = tmp_path / "a.json"
    path.write_bytes(b"\x1f\x8b\x08\0" + b"\xff" * size)
    with pytest.raises(ValueError, match="is compressed with gzip, not text"):
        check.from_text(str(path))
    name = {Schema: "schema", Grammar: "grammar", Tools: "tools"}[type(check)]
    with pytest.raises(UsageError) as refused:
        override_with_flags(Settings(), {name: str(path)})
    assert refused.value.hint == f"convert it with gzip -dc < {path}"
    with pytest.raises(UsageError) as refused:
        override_with_flags(Settings(), {name: "{"})
    assert "`metal-gen help " in refused.value.hint


def test_a_grammar_in_a_file_and_as_it_is(tmp_path):
    lark = 'start: word\nword: "a"'
    (tmp_path / "a.lark").write_text(lark)
    assert Grammar().from_text(str(tmp_path / "a.lark")) == lark
    assert Grammar().from_text(lark) == Grammar()(lark) == lark
    with pytest.raises(ValueError, match="cannot be read"):
        Grammar().from_text(str(tmp_path / "none.lark"))


@pytest.mark.parametrize("name", ["schema", "regex", "choice", "grammar"])
def test_the_hint_names_the_page_that_shows_how_to_write_one(name):
    with pytest.raises(UsageError) as error:
        override_with_flags(Settings(), {name: "/dev/null"} if name in ("schema", "grammar") else {name: ""})
    assert error.value.hint == "`metal-gen help structured-output` shows how to write it"
    with pytest.raises(UsageError) as error:
        override_with_flags(Settings(), {"temperature": "-1"})
    assert error.value.hint == ""


@pytest.mark.parametrize("name", ["schema", "grammar", "tools"])
def test_the_hint_for_a_file_that_is_missing_is_about_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "person.json").touch()
    for given, hint in [("persom.json", "did you mean person.json?"), ("/", "name a file in it")]:
        with pytest.raises(UsageError, match="cannot be read") as error:
            override_with_flags(Settings(), {name: given})
        assert error.value.hint == hint


def test_empty_ones():
    with pytest.raises(ValueError, match="at least one"):
        Choices()([])
    with pytest.raises(ValueError, match="none of them empty"):
        Choices()([""])
    with pytest.raises(ValueError, match="a regular expression"):
        Source("a regular expression", may_be_blank=True)("")
    for check in (Grammar(), Schema(), Tools(), Source("a text")):
        with pytest.raises(ValueError, match="must"):
            check(" \n")


@pytest.mark.parametrize("blanks", [" ", "\n", "\t  "])
def test_blanks_are_a_pattern_and_a_choice(blanks):
    made = override_with_flags(Settings(), {"regex": blanks, "choice": [blanks]})
    assert (made.regex, made.choice) == (blanks, (blanks,))


def test_a_file_of_settings_names_files_and_has_tables(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps(OBJECT))
    path = tmp_path / "c.toml"
    path.write_text(f'[generation]\nschema = "{tmp_path}/s.json"\n')
    assert json.loads(read_toml(path)["schema"]) == OBJECT
    path.write_text('[generation.schema]\ntype = "object"\n')
    assert json.loads(read_toml(path)["schema"]) == {"type": "object"}


def test_a_constraint_replaces_one_from_further_away(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[generation]\nregex = "a"\n')
    settings = override_with_flags(resolve_settings(config_file=path), {"schema": "name"})
    assert settings.regex is None
    assert settings.source("regex") == "default"
    assert settings.schema is not None
    both = override_with_flags(Settings(), {"regex": "a", "choice": ["b"]})
    assert (both.regex, both.choice) == ("a", ("b",))
    assert override_with_flags(both, {"temperature": "1"}).regex == "a"
